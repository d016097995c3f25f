"""Scans of all models of a zoo, each sealed off; those that came to an end are never repeated."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agnes.errors import UsageError
from agnes.registry import Registry
from agnes.reports.folder import write_text, writing
from agnes.text import printable
from agnes_zoo.bench import reports, sealed
from agnes_zoo.manifest import Manifest, model_file, samples_folder, sha256_of

SCANS = "scans"
_CODES = {0: "clean", 1: "backdoored", 5: "inconclusive"}


@dataclass(frozen=True)
class Scan:
    """What was said of one model."""

    name: str
    status: str  # clean, backdoored, inconclusive or failed
    probability: float | None = None
    targets: tuple[int, ...] = ()  # the classes it is said to lead to, the likeliest first
    seconds: float | None = None
    memory: int | None = None  # bytes, at its peak
    reason: str = ""  # why it failed
    repaired: str | None = None  # the file of the repaired network, in the run folder
    guarded: bool | None = None  # whether the kernel kept the scan from the truth; None: it was not ours
    rescan: str | None = None  # what the re-scan of the repaired network says


def run(
    zoo: Path,
    manifest: Manifest,
    output: Path,
    arguments: Sequence[str] = (),
    *,
    jobs: int = 1,
    tell: Callable[[Scan], None] | None = None,
) -> list[Scan]:
    """A scan of every model, in the zoo's order."""
    told = tell or (lambda scan: None)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        over = threading.Event()
        todo = [_Task(zoo, manifest, output, name, tuple(arguments), jobs, over) for name in sorted(manifest.models)]
        found: dict[str, Scan] = {}
        pool = ThreadPoolExecutor(jobs)
        try:
            futures = [pool.submit(task.scan) for task in todo]
            for future in as_completed(futures):
                scan = future.result()
                found[scan.name] = scan
                told(scan)
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)
    return [found[task.name] for task in todo]


@dataclass(frozen=True)
class _Task:
    zoo: Path
    manifest: Manifest
    output: Path
    name: str
    arguments: tuple[str, ...]
    jobs: int
    over: threading.Event  # nothing more is begun once it is set

    def scan(self) -> Scan:
        """As it was found before, or now."""
        key, card = self._key(), self.output / SCANS / f"{self.name}.json"
        folder = self.output / SCANS / self.name
        done = _read(card, key)
        if done is not None:
            return _judged_again(done, folder)
        if self.over.is_set():
            raise KeyboardInterrupt
        record = self.manifest.models[self.name]
        model = model_file(self.zoo, self.name)
        if not model.exists() or sha256_of(model) != record["sha256"]:
            raise UsageError(f"{model} is not the model of the manifest; build the zoo again")
        threads = None if self.jobs == 1 else max(1, (os.cpu_count() or 1) // self.jobs)
        samples = samples_folder(self.zoo, record["data"])
        ended = sealed.scan(model, samples, self.arguments, folder, [self.zoo, self.output], threads, self.over)
        scan = _scan(self.name, ended, folder)
        card.parent.mkdir(parents=True, exist_ok=True)
        write_text(card, json.dumps({"key": key, **asdict(scan)}, indent=1) + "\n")
        return scan

    def _key(self) -> str:
        """What a scan's outcome depends on: the model, the settings and what is installed."""
        installed = sorted(f"{p.distribution} {p.version}" for p in Registry.discover().plugins)
        said = [self.manifest.models[self.name]["sha256"], list(self.arguments), sorted(set(installed))]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _read(card: Path, key: str) -> Scan | None:
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if said.pop("key", None) != key or said["status"] == "failed":  # which another try may mend
        return None
    return Scan(**{**said, "targets": tuple(said["targets"])})


def _judged_again(scan: Scan, folder: Path) -> Scan:
    """The scan with the verdict that this version's calibration gives its findings."""
    report = reports.read(folder)
    verdict = None if report is None else reports.judged(report)
    if verdict is None:
        return scan
    return replace(scan, status=verdict.status, probability=verdict.probability, targets=verdict.targets)


def _scan(name: str, ended: sealed.Sealed, folder: Path) -> Scan:
    """From the report in the run folder, or from how the scan failed."""
    report = reports.read(folder) if ended.code in _CODES else None
    if report is None:
        last = (ended.said.strip().splitlines() or ["it said nothing"])[-1]
        return Scan(name, "failed", reason=f"exit code {ended.code}: {printable(last, 300)}", guarded=ended.guarded)
    verdict, repair = report["verdict"], (report.get("repairs") or [None])[0]
    targets = verdict.get("targets") or [verdict["target"]] * (verdict["target"] is not None)
    exported = None if repair is None else repair.get("exported")
    return Scan(
        name,
        verdict["status"],
        verdict["probability"],
        tuple(int(target) for target in targets),
        report["timings"].get("total"),
        report["environment"].get("peak_memory"),
        repaired=Path(exported).name if exported else None,
        guarded=ended.guarded,
        rescan=((repair or {}).get("rescan") or {}).get("status"),
    )
