"""Files inside of tar and zip archives, read where they lie: nothing is unpacked, and no name leads anywhere.

Archives come from outside. Members that lead out of the archive, are links, are there twice, are encrypted or claim to
be huge are left out and named; an archive that is damaged or not complete is refused.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, cast

from internimage.data.listing import is_hidden
from internimage.data.untrusted.problems import ProblemLog

ARCHIVE_SUFFIXES = (".tar", ".zip")
# Larger than the files of the largest images that are read. A bomb in a zip file costs this much at most.
MAX_MEMBER_BYTES = 512 << 20
# What tar archives may write before a member: long names, attributes.
MAX_HEADER_BYTES = 1 << 20
_PACKED_AS_A_WHOLE = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK, _LOCAL_HEADER, _ENCRYPTED = tarfile.BLOCKSIZE, 30, 1


class DamagedArchive(ValueError):
    """An archive, or a file in it, cannot be read; the message names it."""


class PackedFile(PathLike[str]):
    """A file that lies inside of another one; as a path it is a name for messages."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """Return the content.

        Raises:
            DamagedArchive: a ValueError; it is damaged or not complete.
            OSError: the file that holds it cannot be opened.
        """

    def __str__(self) -> str:
        return self.__fspath__()


@dataclass(frozen=True, slots=True)
class Member(PackedFile):
    """A file inside of an archive; as a path it reads "archive.tar/name.jpg".

    Args:
        archive: the archive.
        name: name of the file in it.
        start: first byte of the content in a tar archive, of the header before it in a zip file.
        size: bytes of the content.
        packed: bytes that it has in a zip file; None in a tar archive, which does not pack.
        checksum: CRC-32 of the content, of files in zip files.
    """

    archive: Path
    name: str
    start: int
    size: int
    packed: int | None = None
    checksum: int = 0

    def __fspath__(self) -> str:
        return f"{self.archive}/{self.name}"

    def __str__(self) -> str:  # a dataclass without it would show its fields
        return self.__fspath__()

    def read(self) -> bytes:
        """Return the content; each call opens the archive, so that threads and processes do not disturb one another."""
        with self.archive.open("rb") as file:
            file.seek(self.start)
            content = _exactly(file, self.size, self) if self.packed is None else self._unpacked(file, self.packed)
        return content

    def _unpacked(self, file: IO[bytes], packed: int) -> bytes:
        header = _exactly(file, _LOCAL_HEADER, self)
        name_length, extra_length = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        is_stored = header[8:10] == b"\0\0"
        file.seek(name_length + extra_length, 1)
        content = _exactly(file, packed, self)
        if not is_stored:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
            except zlib.error as error:
                raise DamagedArchive(f"{self}: the file is damaged ({error}); copy the archive again") from error
        if len(content) != self.size or zlib.crc32(content) != self.checksum:
            raise DamagedArchive(f"{self}: the file is not what the archive says it is; copy the archive again")
        return content


def _exactly(file: IO[bytes], size: int, member: Member) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise DamagedArchive(f"{member}: the archive ends within this file; copy it again")
    return content


def list_members(archive: Path, problems: ProblemLog) -> list[Member]:
    """Return the visible files of an archive, in its order.

    Args:
        archive: a .tar or .zip file.
        problems: takes what is left out.

    Raises:
        DamagedArchive: a ValueError; it is no such archive, damaged, not complete or packed as a whole.
    """
    found = _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive)
    members: dict[str, Member] = {}
    for member, refusal in found:
        reason = refusal or _refusal(member, members)
        if reason is not None:
            problems.add(archive, repr(member.name[:200]), reason)
        elif not any(is_hidden(part) for part in member.name.split("/")):
            members[member.name] = member
    return list(members.values())


def _refusal(member: Member, known: dict[str, Member]) -> str | None:
    """Say why a member is left out, None where it is not."""
    parts = member.name.split("/")
    if ".." in parts or parts[0] in ("", "~") or "\\" in member.name or ":" in parts[0]:
        return "the name leads out of the archive"
    if not member.name.isprintable():
        return "the name holds characters that cannot be shown"
    if member.size > MAX_MEMBER_BYTES:
        return f"the file has {member.size} bytes, more than the limit of {MAX_MEMBER_BYTES}"
    return "a file of this name is there already" if member.name in known else None


class _Headers:
    """A tar archive that gives no more at once than a header may have: a long name of gigabytes is no name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _tar_members(path: Path) -> Iterator[tuple[Member, str | None]]:
    with path.open("rb") as file:
        start = file.read(6)
        packed = next((kind for magic, kind in _PACKED_AS_A_WHOLE.items() if start.startswith(magic)), None)
        if packed is not None:
            raise DamagedArchive(
                f"{path} is packed as a whole ({packed}), so its files cannot be read one by one; unpack it to .tar"
            )
        file.seek(0)
        size = path.stat().st_size
        try:
            archive: Any = tarfile.TarFile(fileobj=cast("IO[bytes]", _Headers(file)))
            while (info := archive.next()) is not None:
                archive.members = []  # else every header of the archive would stay in memory
                member = Member(path, info.name.removeprefix("./"), info.offset_data, info.size)
                if info.isreg() and info.offset_data + info.size > size:
                    raise DamagedArchive(f"{member}: the archive ends within this file; copy it again")
                if not info.isdir():
                    yield member, None if info.isreg() and not info.issparse() else "this is no plain file"
            end = archive.offset
        except (tarfile.TarError, ValueError, OverflowError) as error:
            if isinstance(error, DamagedArchive):
                raise
            raise DamagedArchive(f"{path} is no tar archive, or damaged ({error}); copy it again") from error
        file.seek(end)
        if file.read(_BLOCK).strip(b"\0"):  # tarfile takes a damaged header for the end
            raise DamagedArchive(f"{path} is damaged at byte {end}: what follows is no file; copy it again")


def _zip_members(path: Path) -> Iterator[tuple[Member, str | None]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # the last one: of versions zipfile lacks
        raise DamagedArchive(f"{path} is no zip file, or damaged ({error}); copy it again") from error
    for entry in entries:
        reason = None
        if entry.flag_bits & _ENCRYPTED:
            reason = "the file is encrypted"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = "the file is packed in a way that is not read; use plain zip"
        if not entry.is_dir():
            yield (
                Member(path, entry.filename, entry.header_offset, entry.file_size, entry.compress_size, entry.CRC),
                reason,
            )
