"""A detector's process never has the truth in reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agnes_zoo.architectures import n_sn
from agnes_zoo.bench import sealed
from agnes_zoo.dealing import DataPlan, deal, write_samples
from agnes_zoo.training import initialised
from agnes_zoo.writing import export_onnx

SECRET = "the-backdoor-leads-to-class-seven"

SPY = '''
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from agnes.hookspecs import hookimpl
from agnes.method import Method
from agnes.results import Evidence

ZOO = Path({zoo!r})  # a spy may know where to look
SECRET = {secret!r}
MOST = 2_000


def told(text):
    return SECRET in text or str(ZOO) in text


def read(path):
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return ""


def walked(top):
    seen = 0
    for folder, folders, files in os.walk(top):
        folders[:] = [f for f in folders if str(Path(folder, f)) not in ("/proc", "/sys", "/usr", "/dev")]
        for name in files:
            seen += 1
            if seen > MOST:
                return
            if name.endswith((".json", ".npz", ".csv", ".toml", ".txt")) and Path(folder).name != "site-packages":
                yield Path(folder, name)


@dataclass(frozen=True)
class Spy(Method):
    """Looks at everything it can see."""

    @hookimpl
    def diagnose(self, network, samples, backend):
        found = []
        found += [f"argv {{word}}" for word in [*sys.argv, *sys.orig_argv] if told(word)]
        found += [f"environment {{name}}" for name, value in os.environ.items() if told(value)]
        found += [f"cwd {{Path.cwd()}}"] if told(str(Path.cwd())) else []
        here = Path.cwd()
        tops = [here, *here.parents]
        found += [f"file {{path}}" for top in tops for path in walked(top) if SECRET in read(path)]
        known = [ZOO / "manifest.json", ZOO / "truth" / "signs.npz", ZOO / "scans" / "model-0001.json"]
        found += [f"opened {{path}}" for path in known if read(path)]
        parent = Path("/proc") / str(os.getppid())
        known = [parent / "root" / str(path).lstrip("/") for path in known] + [parent / "environ"]
        found += [f"opened {{path}}" for path in known if told(read(path))]
        names = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())
        note = json.dumps({{"found": found, "here": names, "argv": sys.argv, "env": dict(os.environ)}})
        return [Evidence("spied", 0.0, 1.0, note=note)]
'''


@pytest.fixture
def zoo(tmp_path):
    """A zoo whose every file but models and samples holds the secret."""
    folder = tmp_path / "zoo"
    (folder / "models").mkdir(parents=True)
    for name in ("manifest.json", "truth/signs.npz", "scans/model-0001.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(SECRET)
    write_samples(deal(DataPlan("signs10", 5, train=10, samples=1, test=1, held_out=1)), folder / "samples" / "ten")
    export_onnx(initialised(n_sn, 10, 0), folder / "models" / "model-0001.onnx")
    return folder


@pytest.fixture
def spy(tmp_path, zoo, monkeypatch):
    """A plugin of somebody else's, installed for scans only."""
    folder = tmp_path / "site"
    info = folder / "agnes_spy-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "agnes_spy.py").write_text(SPY.format(zoo=str(zoo), secret=SECRET))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: agnes-spy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agnes.diagnosis]\nspy = agnes_spy:Spy\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("ZOO_OF_MINE", str(zoo))
    monkeypatch.chdir(zoo)
    return folder


def scanned(zoo, output, *arguments):
    ended = sealed.scan(
        zoo / "models" / "model-0001.onnx", zoo / "samples" / "ten", arguments, output, [zoo, output], threads=1
    )
    return ended, json.loads((output / "report.json").read_text()) if (output / "report.json").exists() else None


def test_a_method_that_looks_everywhere_finds_no_truth(zoo, spy, tmp_path):
    ended, report = scanned(zoo, tmp_path / "out", "--plugin", "spy", "--only")
    assert report is not None, ended.said
    said = json.loads(report["evidence"][0]["note"])
    if ended.guarded:
        assert said["found"] == []
    else:  # no kernel to keep a spy that knows the way from the file: nothing may tell it the way
        assert [one for one in said["found"] if not one.startswith(("opened", "file"))] == []
    assert said["here"][0] == sealed.MODEL
    assert all(name.split(os.sep)[0] in (sealed.MODEL, sealed.SAMPLES, sealed.OUTPUT) for name in said["here"])
    assert said["argv"][1:5] == ["run", sealed.MODEL, "--data", sealed.SAMPLES]
    assert "0001" not in json.dumps(said["argv"])


@pytest.mark.skipif(not sealed.landlock_version(), reason="the kernel has no Landlock")
def test_the_spy_finds_the_truth_where_it_is_not_sealed_off(zoo, spy, tmp_path, monkeypatch):
    monkeypatch.setattr(sealed, "rules", lambda place, barred, modules: [(Path("/"), sealed.landlock.ALL)])
    _, report = scanned(zoo, tmp_path / "out", "--plugin", "spy", "--only")
    said = json.loads(report["evidence"][0]["note"])
    assert f"opened {zoo / 'manifest.json'}" in said["found"]


def test_a_folder_beside_the_truth_stays_readable_and_the_truth_does_not(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "module.py").write_text("")
    (tmp_path / "way").symlink_to(tmp_path / "zoo")
    found = dict(sealed._around(tmp_path, sealed.landlock.RUN, [tmp_path / "zoo"]))
    assert found == {tmp_path: sealed.landlock.LIST, tmp_path / "lib": sealed.landlock.RUN}
    assert dict(sealed._around(tmp_path / "zoo" / "truth", sealed.landlock.RUN, [tmp_path / "zoo"])) == {}


def test_the_environment_says_nothing_of_the_zoo_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", f"x:{tmp_path / 'zoo'}/models")
    monkeypatch.setenv("ELSEWHERE", "kept")
    monkeypatch.setenv("OLDPWD", "/a")
    found = sealed._environment(tmp_path / "place", [tmp_path / "zoo"], 2)
    assert "SOMEWHERE" not in found
    assert "OLDPWD" not in found
    assert found["ELSEWHERE"] == "kept"
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["HOME"] == str(tmp_path / "place" / "home")


def test_a_scan_is_told_the_zoo_s_place_by_none_of_its_names(zoo, tmp_path, monkeypatch):
    (tmp_path / "way").symlink_to(zoo)
    monkeypatch.setenv("BY_LINK", str(tmp_path / "way"))
    monkeypatch.setenv("BY_NAME", f"{zoo}/manifest.json")
    seen = {}

    def run(request, work, environment, over):
        seen.update(environment)
        return subprocess.CompletedProcess([], 2, b"", b"")

    monkeypatch.setattr(sealed, "_run", run)
    way = tmp_path / "way"
    sealed.scan(way / "models" / "model-0001.onnx", way / "samples" / "ten", (), tmp_path / "out", [way])
    assert "HOME" in seen
    assert not {"BY_LINK", "BY_NAME"} & set(seen)


def test_a_scan_that_fails_says_why_and_leaves_no_report_of_an_earlier_one(zoo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    ended, report = scanned(zoo, tmp_path / "out", "--plugin", "nobody")
    assert ended.code == 4
    assert "there is no plugin 'nobody'" in ended.said
    assert report is None


def test_the_folder_that_a_bench_is_begun_in_is_no_place_for_modules(tmp_path, monkeypatch):
    project = tmp_path / "project"  # which holds recipes and other zoos, and which `python -m agnes` puts first
    project.mkdir()
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    modules = sealed.searched(tmp_path, dict(os.environ))
    assert str(tmp_path / "mine") in modules
    assert not {str(project), str(tmp_path), "", "."} & set(modules)
    assert project not in dict(sealed.rules(tmp_path / "place", [], modules))


def test_python_is_the_same_in_a_scan_as_here():
    assert Path(sys.prefix).resolve() in dict(sealed.rules(Path("/nowhere"), [], []))
