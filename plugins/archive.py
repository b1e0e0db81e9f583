"""Packs a directory into a ``.tar.xz``, then reads it back and compares it with the directory.

The archive is written beside its final name and moved there only once it has been checked: a file of that
name is always whole. Members are in order of their names and carry no owner, so the same
directory gives the same bytes.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from rigger_mp import RiggerBasePlugin
from rigger_mp.errors import RiggerError

DEFAULT_EVENT = "archive_session"
SUFFIX = ".tar.xz"
PRESET = 1
"""How hard xz tries, 0 to 9."""
BLOCK = 1 << 20
"""Bytes read at once."""


class ArchiveError(RiggerError):
    """Raised when there is no directory to pack, or an archive does not hold what the directory does."""


class Archive(RiggerBasePlugin):
    """Packs the directory that an event names; meant for an instance with ``background: true``.

    Its configuration takes ``path``, where the archive goes (default: the directory's name with
    ``.tar.xz``), and ``event`` (default: ``archive_session``).
    """

    def plugin_initialize(self) -> None:
        """Bind the configured event."""
        self.register_plugin_hook(str(self.data.get("event", DEFAULT_EVENT)), self.archive_session)

    def archive_session(self, directory: str | os.PathLike[str]) -> tuple[None, dict[str, Any]]:
        """Pack a directory and check what was written.

        Returns:
            The global update ``{"archive": {ident: {"path": str, "files": int, "bytes": int}}}``: the number
            of regular files in the archive, and the archive's own size in bytes.

        Raises:
            ArchiveError: the directory is missing, or changed meanwhile, or the archive is damaged.
            OSError: something cannot be read or written.
        """
        source = Path(directory)
        path = Path(self.data.get("path") or f"{source.resolve()}{SUFFIX}")
        files = pack(source, path)
        entry = {"path": str(path), "files": files, "bytes": path.stat().st_size}
        return None, {"archive": {self.ident: entry}}


def pack(directory: Path, path: Path) -> int:
    """Pack a directory into a checked archive and return the number of regular files in it.

    Directories, regular files and symbolic links are packed; sockets, pipes and devices have no content
    to keep and are left out, and so is the archive itself if it lies in the directory.

    Raises:
        ArchiveError: the directory is missing, or :func:`check` finds a difference.
        OSError: something cannot be read or written.
    """
    if not directory.is_dir():
        raise ArchiveError(f"cannot archive {str(directory)!r}: there is no such directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    unchecked = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    members = list(_members(directory, (path, unchecked)))
    try:
        _write(members, unchecked)
        check(members, unchecked)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return sum(_is_file(file) for _, file in members)


def check(members: list[tuple[str, Path]], archive: Path) -> None:
    """Compare an archive with the files it was made of: names, kinds, links, SHA-256 of every file.

    Args:
        members: name in the archive and place on disk, in the archive's order.
        archive: the ``.tar.xz``.

    Raises:
        ArchiveError: they differ, or the archive cannot be read to its end.
        OSError: a file on disk cannot be read.
    """
    files = dict(members)
    try:
        with lzma.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as tar:
                names = [_check_member(tar, member, files) for member in tar]
            # Behind the last member lies what tarfile never reads: LZMA's own checksums and end mark.
            _digest(stream)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ArchiveError(f"archive {str(archive)!r} cannot be read back: {error}") from error
    if names != list(files):
        missing = sorted(files.keys() - set(names))
        raise ArchiveError(f"archive {str(archive)!r} lacks, repeats or reorders members; missing: {missing}")


def _check_member(tar: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, Path]) -> str:
    file = files.get(member.name)
    if file is None:
        raise ArchiveError(f"archive member {member.name!r} is not in the directory")
    if member.isreg():
        content = tar.extractfile(member)
        same = content is not None and _is_file(file) and _digest(content) == _digest_of(file)
    elif member.issym():
        same = file.is_symlink() and member.linkname == os.readlink(file)  # noqa: PTH115 - the text as it is
    else:
        same = member.isdir() and file.is_dir()
    if not same:
        raise ArchiveError(f"archive member {member.name!r} differs from {str(file)!r}")
    return member.name


def _members(directory: Path, leave_out: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    left_out = {file.parent.resolve() / file.name for file in leave_out}
    root = directory.resolve()
    top = root.name or "root"
    yield top, root
    for file in sorted(_below(root)):
        if file not in left_out and _is_packable(file):
            yield f"{top}/{file.relative_to(root).as_posix()}", file


def _below(root: Path) -> Iterator[Path]:
    # Not rglob(): it passes over directories that it may not read, and the archive must be whole.
    for parent, directories, files in os.walk(root, onerror=_raise):
        yield from (Path(parent, name) for name in directories + files)


def _raise(error: OSError) -> NoReturn:
    raise error


def _is_packable(file: Path) -> bool:
    mode = file.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _is_file(file: Path) -> bool:
    return stat.S_ISREG(file.lstat().st_mode)


def _write(members: list[tuple[str, Path]], archive: Path) -> None:
    # Reports are repetitive: higher presets take several times as long and save little.
    with (
        lzma.open(archive, "wb", preset=PRESET) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for name, file in members:
            info = _describe(tar, name, file)
            if not info.isreg():
                tar.addfile(info)
                continue
            with file.open("rb") as content:
                tar.addfile(info, content)


def _describe(tar: tarfile.TarFile, name: str, file: Path) -> tarfile.TarInfo:
    info = tar.gettarinfo(file, name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if info.islnk():  # a second name of a file: packed whole, so that every member can be checked alone
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", file.lstat().st_size
    return info


def _digest_of(file: Path) -> bytes:
    with file.open("rb") as content:
        return _digest(content)


def _digest(content: IO[bytes]) -> bytes:
    digest = hashlib.sha256()
    while block := content.read(BLOCK):
        digest.update(block)
    return digest.digest()
