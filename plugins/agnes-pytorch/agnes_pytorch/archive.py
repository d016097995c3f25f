"""The zip files of torch.save, read strictly: what two readers could read differently is refused."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agnes.errors import Refused
from agnes.text import printable

START = b"PK\x03\x04"
_END = struct.Struct("<4s4H2IH")  # of the file
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")  # of the central directory
_LOCAL = struct.Struct("<4s5H3I2H")
_AFTER = struct.Struct("<4s3I")  # the descriptor behind a member's bytes
_UNKNOWN = 0xFFFFFFFF
_LIST_BYTES = 16 << 20  # of the central directory
_CHUNK = 1 << 20
_PLAIN = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+"
)
_FIRST = re.compile(rb"[^/]+/(data\.pkl$|data/|\.data/|code/|version$|byteorder$|archive_format$|models/)")


@dataclass(frozen=True)
class Member:
    """One file in the archive."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    start: int  # of its header
    data: int = 0  # of its bytes


@dataclass(frozen=True)
class Archive:
    """The members of a zip file by their names below the one top folder."""

    path: Path
    members: Mapping[str, Member]

    @property
    def kind(self) -> str:
        """What torch would take the file for."""
        names = self.members
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            return "TorchScript"
        exported = ("archive_format", "serialized_exported_program.json", "serialized_state_dict.json")
        if any(name in names for name in exported) or any(name.startswith("models/") for name in names):
            return "torch.export"
        if ".data/extern_modules" in names or any(name.endswith(".py") for name in names):
            return "torch.package"
        return "zip"

    def checked_pickle(self, limit: int) -> bytes:
        """The bytes of data.pkl of a file of weights, in which nothing is odd, packed or damaged."""
        name = printable(self.path.name)
        odd = next((member for member in self.members if not _PLAIN.fullmatch(member)), None)
        if odd is not None:
            raise Refused(f"refused: {name} holds '{printable(odd)}', which no file of weights has")
        if "data.pkl" not in self.members:
            raise Refused(f"refused: {name} holds no data.pkl, so no weights of torch.save")
        size = self.members["data.pkl"].size
        if size > limit:
            raise Refused(f"refused: {name} has a pickle of {size} bytes, more than pytorch.pickle_limit ({limit})")
        with self.path.open("rb") as file:
            for member, entry in self.members.items():
                _check_bytes(file, entry, f"'{printable(member)}' in {name}")
            if "byteorder" in self.members and self._bytes(file, "byteorder", 16) != b"little":
                raise Refused(f"refused: {name} was written with the other byte order; save it as safetensors")
            return self._bytes(file, "data.pkl", size)

    def check_blocks(self, wanted: Mapping[str, int]) -> None:
        """Refuse a file whose pickle wants other blocks of numbers than it holds."""
        for key, size in wanted.items():
            block = self.members.get(f"data/{key}")
            if block is None or block.size != size:
                there = "none" if block is None else f"{block.size} bytes"
                raise Refused(
                    f"refused: {printable(self.path.name)} declares {size} bytes of numbers where it holds {there}"
                )

    def _bytes(self, file: IO[bytes], member: str, most: int) -> bytes:
        entry = self.members[member]
        file.seek(entry.data)
        return file.read(min(entry.size, most))


def looks_like(path: Path) -> bool:
    """Whether a file begins as torch's zip files do."""
    with path.open("rb") as file:
        start = file.read(_LOCAL.size + 300)
    if not start.startswith(START) or len(start) < _LOCAL.size:
        return False
    name = start[_LOCAL.size :][: int.from_bytes(start[26:28], "little")]
    return _FIRST.match(name) is not None


def read(path: Path, limit: int) -> Archive:
    """The archive in a file, whose lists, headers and bytes all tell the same."""
    name, size = printable(path.name), path.stat().st_size
    if size > limit:
        raise Refused(f"refused: {name} has {size} bytes, more than pytorch.size_limit ({limit})")
    try:
        with path.open("rb") as file:
            count, start, length = _end(file, size, name)
            members = _listed(file, count, start, length, name)
            return Archive(path, _below_one_folder(_placed(file, members, start, name), name))
    except struct.error:
        raise Refused(f"refused: {name} is cut short, or no zip file as torch writes it") from None


def _end(file: IO[bytes], size: int, name: str) -> tuple[int, int, int]:
    """How many members there are, and where their list begins and how long it is."""
    broken = Refused(f"refused: {name} is cut short, or no zip file as torch writes it")
    if size < _END.size:
        raise broken
    file.seek(size - _END.size)
    tail = file.read(_END.size)
    mark, disk, first, here, count, length, start, comment = _END.unpack(tail)
    if mark != b"PK\5\6" or tail.find(b"PK\5\6", 1) != -1 or disk or first or here != count or comment:
        raise broken
    if _UNKNOWN in (length, start) or count == 0xFFFF or length > _LIST_BYTES:
        raise Refused(f"refused: {name} is larger than the zip files that AGNES reads; save it as safetensors")
    behind = size - _END.size - start - length
    if behind == 0:
        return count, start, length
    if behind != _END64.size + _LOCATOR.size:
        raise broken
    file.seek(start + length)
    mark, rest, _, _, disk, first, *told = _END64.unpack(file.read(_END64.size))
    locator = _LOCATOR.unpack(file.read(_LOCATOR.size))
    known = (mark, rest, disk, first, *told) == (b"PK\6\6", _END64.size - 12, 0, 0, count, count, length, start)
    if not known or locator[:3] != (b"PK\6\7", 0, start + length) or locator[3] > 1:
        raise broken
    return count, start, length


def _listed(file: IO[bytes], count: int, start: int, length: int, name: str) -> dict[str, Member]:
    """The members as the list at the end has them, none twice, in the order of their places."""
    file.seek(start)
    text, place = file.read(length), 0
    found: dict[str, Member] = {}
    seen: set[str] = set()
    for _ in range(count):
        mark, _, _, flags, method, _, _, crc, packed, size, letters, extra, note, disk, _, _, where = (
            _ENTRY.unpack_from(text, place)
        )
        place += _ENTRY.size
        member = _decoded(text[place : place + letters], name)
        place += letters + extra + note
        if mark != b"PK\1\2" or note or disk or _UNKNOWN in (packed, size, where) or flags & ~0x808:
            raise Refused(f"refused: {name} lists '{printable(member)}' in a way that torch does not")
        if member.casefold() in seen:
            raise Refused(f"refused: {name} holds '{printable(member)}' twice")
        seen.add(member.casefold())
        found[member] = Member(flags, method, crc, packed, size, where)
    if place != length:
        raise Refused(f"refused: {name} has a list of members that does not fit its length")
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def _decoded(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"refused: a member of {name} has a name that is not UTF-8") from None
    if not text.isprintable() or "\\" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise Refused(f"refused: a member of {name} has the odd name '{printable(text)}'")
    return text


def _placed(file: IO[bytes], members: Mapping[str, Member], end: int, name: str) -> dict[str, Member]:
    """The members with the places of their bytes; each header says what the list says, and no byte is left over."""
    place, found = 0, {}
    for member, entry in members.items():
        told = f"refused: {name} says one thing of '{printable(member)}' in its list and another at its place"
        file.seek(entry.start)
        mark, _, flags, method, _, _, crc, packed, size, letters, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        own = file.read(letters).decode("utf-8", "replace")
        here = (0, 0, 0) if flags & 8 else (entry.crc, entry.packed, entry.size)
        if entry.start != place or mark != START or own != member or (flags, method) != (entry.flags, entry.method):
            raise Refused(told)
        if (crc, packed, size) not in (here, (entry.crc, entry.packed, entry.size)):
            raise Refused(told)
        data = entry.start + _LOCAL.size + letters + extra
        place = data + entry.packed
        if flags & 8:
            file.seek(place)
            if _AFTER.unpack(file.read(_AFTER.size)) != (b"PK\7\x08", entry.crc, entry.packed, entry.size):
                raise Refused(told)
            place += _AFTER.size
        found[member] = Member(flags, method, entry.crc, entry.packed, entry.size, entry.start, data)
    if place != end:
        raise Refused(f"refused: {name} holds bytes that belong to none of its members")
    return found


def _below_one_folder(members: Mapping[str, Member], name: str) -> dict[str, Member]:
    tops = {member.partition("/")[0] for member in members}
    if len(tops) != 1 or any("/" not in member for member in members):
        raise Refused(f"refused: {name} is no zip file of torch.save: its members are not in one folder")
    return {member.partition("/")[2]: entry for member, entry in members.items()}


def _check_bytes(file: IO[bytes], entry: Member, what: str) -> None:
    if entry.method != 0 or entry.packed != entry.size:
        raise Refused(f"refused: {what} is compressed, which torch.save never does")
    file.seek(entry.data)
    crc, left = 0, entry.size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise Refused(f"refused: {what} is cut short")
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
    if crc != entry.crc:
        raise Refused(f"refused: {what} is damaged, or saved without a checksum; save it again")
