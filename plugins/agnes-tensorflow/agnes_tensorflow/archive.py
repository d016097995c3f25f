"""The zip archive of a .keras file: exactly as Keras writes it, or refused."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from agnes.errors import Refused
from agnes.text import printable

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MEMBERS = frozenset((CONFIG, METADATA, WEIGHTS))
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_TEXT_BYTES = 16 << 20  # of a member that is JSON
_UTF8 = 0x800  # the one flag that a member may have


def looks_like(path: Path) -> bool:
    """Whether a file is a zip archive that begins with one of the members of a .keras file."""
    with path.open("rb") as file:
        start = file.read(64)
    return start[:4] == b"PK\x03\x04" and start[30:].startswith(tuple(name.encode() for name in _MEMBERS))


def check(path: Path) -> str:
    """Refuse an archive that two readers might read differently; return the text of its configuration."""
    name = printable(path.name)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            _check_members(archive, name)
            _check_layout(archive, file, path.stat().st_size, name)
            if broken := archive.testzip():
                raise Refused(f"refused: {name}: the checksum of its {printable(broken)} is wrong; the file is broken")
            return archive.read(CONFIG).decode("utf-8")
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, OSError, RuntimeError, KeyError) as error:
        raise Refused(
            f"refused: {name} is no sound .keras archive ({printable(error)}); save the model again"
        ) from None


def weights_in(path: Path) -> bytes:
    """The HDF5 file inside a checked archive."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(WEIGHTS)


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    found = [member.orig_filename for member in archive.infolist()]
    for member in found:
        if member not in _MEMBERS:
            kind = "an asset, such as a vocabulary, " if member.startswith("assets") else ""
            raise Refused(
                f"refused: {name} holds {kind}{printable(member)!r}; "
                "AGNES opens .keras files of weights and configuration only"
            )
    if len(set(found)) < len(found):
        raise Refused(f"refused: {name} holds two members of one name; save the model again")
    for member in _MEMBERS:
        if member not in found:
            raise Refused(f"refused: {name} lacks {member}; it is no complete .keras file")
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise Refused(f"refused: {name}: its {member.filename} is compressed, as Keras never does; save it again")
        if member.flag_bits & ~_UTF8:
            raise Refused(f"refused: {name}: its {member.filename} is encrypted or has no size; save it again")
        if member.filename != WEIGHTS and member.file_size > _TEXT_BYTES:
            raise Refused(f"refused: {name}: its {member.filename} is larger than {_TEXT_BYTES} bytes")


def _check_layout(archive: zipfile.ZipFile, file: object, size: int, name: str) -> None:
    """Members follow one another from the first byte to the directory, and are what the directory says."""
    unsound = Refused(f"refused: {name}: the zip archive's headers and its directory disagree; save the model again")
    position = 0
    for member in sorted(archive.infolist(), key=lambda each: each.header_offset):
        file.seek(position)  # type: ignore[attr-defined]
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))  # type: ignore[attr-defined]
        signature, _, flags, method, _, _, crc, packed, plain, name_length, extra = header
        said = file.read(name_length)  # type: ignore[attr-defined]
        same = (signature, flags, method, said) == (b"PK\x03\x04", member.flag_bits, 0, member.filename.encode())
        sizes = {0xFFFFFFFF} if extra else set()  # the real ones then stand in the zip64 field
        sizes.add(member.file_size)
        if member.header_offset != position or not same or crc != member.CRC or not {packed, plain} <= sizes:
            raise unsound
        position += _LOCAL_HEADER.size + name_length + extra + member.file_size
    if position != archive.start_dir or archive.comment or position > size:
        raise unsound
