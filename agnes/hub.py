"""Models of a hub by their address, hf://org/name: one file of weights is fetched, and nothing of it is run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agnes.errors import AgnesError, NothingApplicable, Refused, UsageError
from agnes.text import printable

PREFERENCE = (  # what is opened of a repository that holds several formats, the first first
    (".safetensors",),
    (".onnx",),
    (".keras", ".h5", ".hdf5"),
    (".pt", ".pth", ".bin", ".ckpt"),
)
FILE_LIMIT = 2_000_000_000  # bytes of a model file with its external data
_CONFIG, _CONFIG_LIMIT = "config.json", 1_000_000
_ENTRIES = 100_000  # files that a repository may list
_SHOWN = 8  # files that a refusal names
_TIMEOUT = 20.0  # seconds for the hub to say what there is
_NEVER = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe")
_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[\w.-]+))?(?:/(?P<file>.+))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Address:
    """hf://org/name[@revision][/file]."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision, file = f"@{self.revision}" if self.revision else "", f"/{self.file}" if self.file else ""
        return f"hf://{self.repository}{revision}{file}"


@dataclass(frozen=True)
class Fetched:
    """A model file that was fetched, and where it came from."""

    path: Path
    address: Address  # with the commit for its revision
    commit: str
    class_names: tuple[str, ...] | None  # of config.json

    @property
    def facts(self) -> Mapping[str, str]:
        return {"address": str(self.address), "commit": self.commit}


@dataclass(frozen=True)
class _Entry:
    """A file of a repository, as the hub lists it."""

    name: str
    size: int
    sha256: str | None


def is_address(path: Path | str) -> bool:
    """Whether this is the address of a model on a hub and no path of this machine."""
    return _as_typed(path).startswith("hf://")


def parse(path: Path | str) -> Address:
    """The address in what a user typed."""
    found = _ADDRESS.fullmatch(_as_typed(path))
    parts = ((found and found["file"]) or "x").split("/")
    if found is None or not all(part.isprintable() and part not in ("", ".", "..") for part in parts):
        raise UsageError(
            f"'{printable(_as_typed(path))}' is no address of a model; write hf://org/name, hf://org/name/file or, for "
            "a branch, tag or commit, hf://org/name@revision/file"
        )
    return Address(found["repository"], found["revision"], found["file"])


def fetch(path: Path | str) -> Fetched:
    """The model file at an address: listed, chosen, bounded, fetched with what belongs to it, and compared."""
    address = parse(path)
    api = _api()
    with _told(address):
        found = api.model_info(address.repository, revision=address.revision, files_metadata=True, timeout=_TIMEOUT)
    entries, commit = _listed(found, address), _commit(found, address)
    chosen = _chosen(entries, address)
    wanted = [chosen, *_beside(chosen, entries)]
    total = sum(entry.size for entry in wanted)
    if total > FILE_LIMIT:
        raise Refused(f"refused: {address.repository}: {chosen.name} has {total} bytes, more than {FILE_LIMIT}")
    folder = _folder(address.repository, commit)
    for entry in wanted:
        _download(api, address, entry, commit, folder)
    names = _class_names(lambda entry: _download(api, address, entry, commit, folder), chosen, entries)
    return Fetched(folder / chosen.name, Address(address.repository, commit, chosen.name), commit, names)


def _as_typed(path: Path | str) -> str:
    """The text of an address with both its slashes."""
    return re.sub(r"^hf:/{1,2}", "hf://", path.as_posix() if isinstance(path, Path) else path)


def _api() -> Any:
    """The hub's client; nothing else of it is imported."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise NothingApplicable(
            "addresses that begin with hf:// need huggingface-hub; pip install 'agnes-scan[hub]', or download the file "
            "and give its path"
        ) from None
    from agnes import __version__

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="agnes", library_version=__version__)


def _folder(repository: str, commit: str) -> Path:
    """Where the files of a commit are kept: real files, for a link could lead anywhere."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "agnes" / repository.replace("/", "--") / commit


@contextmanager
def _told(address: Address) -> Iterator[None]:
    """Turn what the client raises into one line."""
    from huggingface_hub import errors

    where, log = str(address), logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what matters of it is raised
    try:
        yield
    except AgnesError:
        raise
    except errors.GatedRepoError:
        raise UsageError(
            f"{where} is gated: ask for access on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"there is no model {address.repository} on the hub, or it is private; check the name, or log in with "
            "`hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{address.repository} has no revision '{address.revision}'; check its branches") from None
    except errors.EntryNotFoundError:
        raise UsageError(f"{where}: the hub lists the file and does not have it; try again later") from None
    except errors.HFValidationError as error:
        raise UsageError(f"{where}: {_first_line(error)}") from None
    except errors.OfflineModeIsEnabled:
        raise AgnesError(f"{where} cannot be fetched: HF_HUB_OFFLINE is set; give the path of a file instead") from None
    except Exception as error:
        response = getattr(error, "response", None)
        if response is not None:
            raise AgnesError(f"{where}: the hub answered with {response.status_code}; try again later") from error
        raise AgnesError(
            f"{where} cannot be fetched: {type(error).__name__}: {_first_line(error)}; check the connection, or give "
            "the path of a file"
        ) from error
    finally:
        log.setLevel(level)


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0])


def _listed(found: Any, address: Address) -> dict[str, _Entry]:
    """The files of a repository by name; names that could lead elsewhere are left out."""
    siblings = found.siblings or []
    if len(siblings) > _ENTRIES:
        raise Refused(f"refused: {address.repository} lists {len(siblings)} files, more than {_ENTRIES}")
    entries = {}
    for sibling in siblings:
        name, size, stored = str(sibling.rfilename), sibling.size, sibling.lfs
        parts = name.split("/")
        if "\\" in name or ":" in name or not all(p.isprintable() and p not in ("", ".", "..") for p in parts):
            continue
        entries[name] = _Entry(name, size if isinstance(size, int) else -1, getattr(stored, "sha256", None))
    return entries


def _commit(found: Any, address: Address) -> str:
    if not re.fullmatch(r"[0-9a-f]{40,64}", str(found.sha)):
        raise AgnesError(f"{address}: the hub does not say which commit it is; try again later")
    return str(found.sha)


def _chosen(entries: Mapping[str, _Entry], address: Address) -> _Entry:
    """The file that was named, or the only one of the first format of PREFERENCE that there is."""
    if address.file is not None:
        if address.file.lower().endswith(_NEVER):
            raise Refused(
                f"refused: {address} is code, and AGNES does not fetch code; name the file of its weights, with --arch"
            )
        if address.file not in entries:
            raise UsageError(f"{address.repository} has no file '{printable(address.file)}'{_offered(entries)}")
        return _sized(entries[address.file], address)
    for suffixes in PREFERENCE:
        same = sorted(name for name in entries if name.lower().endswith(suffixes))
        if len(same) == 1:
            return _sized(entries[same[0]], address)
        if same:
            raise Refused(
                f"refused: {address.repository} holds {len(same)} such files: {_written(same)}; "
                f"name one, as in hf://{address.repository}/{printable(same[0])}"
            )
    raise NothingApplicable(f"{address.repository} holds no model file that AGNES opens{_offered(entries)}")


def _sized(entry: _Entry, address: Address) -> _Entry:
    if entry.size < 0:
        raise AgnesError(f"{address}: the hub does not say how large {printable(entry.name)} is; try again later")
    return entry


def _offered(entries: Mapping[str, _Entry]) -> str:
    known = sorted(name for name in entries if name.lower().endswith(tuple(s for group in PREFERENCE for s in group)))
    return f"; there is {_written(known)}" if known else ""


def _written(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _beside(chosen: _Entry, entries: Mapping[str, _Entry]) -> list[_Entry]:
    """The external data of an ONNX file, by the names that exporters give it."""
    folder, _, name = chosen.name.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    if suffix.lower() != "onnx":
        return []
    data = re.compile(rf"{re.escape(name)}[._-]data([._-]?\d+)?|{re.escape(stem)}\.(data|bin|weights)")
    start = f"{folder}/" if folder else ""
    near = (entry for entry in entries.values() if entry.name.startswith(start))
    return [entry for entry in near if entry.size >= 0 and data.fullmatch(entry.name.removeprefix(start))]


def _download(api: Any, address: Address, entry: _Entry, commit: str, folder: Path) -> Path:
    """One file of a commit, no larger than the hub said, and with the hash that it said."""
    with _told(address):
        api.hf_hub_download(
            address.repository, entry.name, revision=commit, local_dir=folder, tqdm_class=_counter(entry, address)
        )
    path = folder / entry.name
    if not path.is_file() or path.is_symlink() or path.stat().st_size != entry.size:
        raise Refused(
            f"refused: {address}: {printable(entry.name)} is not of the {entry.size} bytes that the hub lists"
        )
    if entry.sha256 is not None and _sha256(path) != entry.sha256:
        raise Refused(f"refused: {address}: {printable(entry.name)} has not the hash that the hub lists; remove {path}")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _counter(entry: _Entry, address: Address) -> type:
    """A progress bar that shows nothing, and ends a download which brings more than it should."""
    from huggingface_hub.utils import tqdm

    class Counter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.taken = 0

        def update(self, n: float | None = 1) -> None:
            self.taken += n or 0
            if self.taken > entry.size:
                name = printable(entry.name)
                raise Refused(f"refused: {address}: {name} is larger than the {entry.size} bytes that the hub lists")

    return Counter


def _class_names(
    download: Callable[[_Entry], Path], chosen: _Entry, entries: Mapping[str, _Entry]
) -> tuple[str, ...] | None:
    """The names of the classes in the config.json beside the file, or at the top; None where it tells none."""
    folder = chosen.name.rpartition("/")[0]
    places = (f"{folder}/{_CONFIG}", _CONFIG) if folder else (_CONFIG,)
    entry = next((entries[place] for place in places if place in entries), None)
    if entry is None or not 0 < entry.size <= _CONFIG_LIMIT:
        return None
    try:
        found = json.loads(download(entry).read_text(encoding="utf-8"))
        names = {int(index): name for index, name in found["id2label"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
        return None
    return tuple(printable(names[index]) for index in range(len(names))) or None
