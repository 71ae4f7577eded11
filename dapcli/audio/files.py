"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from dapcli.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: What a file is to hold, or a function that writes it into a stream.
Content = bytes | Callable[[BinaryIO], None]


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise ``OutputError``, before hours of work, where a file cannot be written, or is there and is to stay."""
    folder = path.parent
    try:
        exists = bool(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except OSError as error:  # its name is too long, for one
        raise _refusal(path, error, "another name") from error
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; create it first")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if exists and not overwrite:
        raise OutputError(f"{path}: already exists; add --overwrite to replace it (in Python: overwrite=True)")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: is read-only; choose another folder")


def check_space(sizes: Mapping[Path, int]) -> None:
    """Raise ``OutputError``, before hours of work, where there is no room for so many bytes in each of some folders."""
    disks: dict[int, int] = {}
    for folder, size in sizes.items():
        device, disk = folder.stat().st_dev, shutil.disk_usage(folder)
        disks[device] = disks.get(device, 0) + size
        if disk.total and disk.free < disks[device]:
            raise OutputError(
                f"{folder}: {disk.free / 1e6:.1f} MB are free, and about {disks[device] / 1e6:.1f} MB will be written; "
                "make room, or choose another folder"
            )


def _refusal(path: Path, error: OSError, choice: str = "another folder", what: str = "written") -> OutputError:
    return OutputError(f"{path}: cannot be {what} ({error.strerror}); choose {choice}")


def beside(path: Path, ending: str) -> Path:
    """A path with something after its name; a hidden one of a short name where that would be too long."""
    longer = path.parent / f"{path.name}{ending}"
    try:
        longer.lstat()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            return _beside(path, ending)
    return longer


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """A folder to write into: made if it is missing, and removed again if nothing was written into it.

    Raises:
        OutputError: It cannot be made, or is a file.
    """
    made = False
    try:
        folder.mkdir()
        made = True
    except FileExistsError:
        if not folder.is_dir():
            raise OutputError(f"{folder}: is not a folder; name one to write the files into") from None
    except FileNotFoundError:
        raise OutputError(f"{folder.parent}: no such folder; create it first") from None
    except OSError as error:
        raise _refusal(folder, error, what="created") from error
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # what was written there keeps it
                folder.rmdir()


@contextlib.contextmanager
def claim(path: Path) -> Iterator[None]:
    """Keep other runs from a file that is to be written, or a folder, and remove what a killed run has left there.

    The claim is a lock on an empty file beside the file, or in the folder, which ends with the process; one that a
    killed run has left is in nobody's way. Where a file system knows no locks, nothing is claimed. Raises
    ``OutputError`` where another run has claimed it, or the folder cannot be written.
    """
    lock = _beside(path, ".lock")
    try:
        descriptor = _lock(lock)
    except OSError as error:
        raise _refusal(path, error) from error
    if descriptor is None:
        raise OutputError(f"{path} is being written by another run; wait for that, or choose another name")
    try:
        for part in lock.parent.glob(f"{lock.stem}-*.part"):
            part.unlink(missing_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def is_claimed(folder: Path) -> bool:
    """Whether a run has claimed a folder: a machine where it has not sees another folder, if any, of that name."""
    return folder.is_dir() and _beside(folder, ".lock").exists()


def _lock(path: Path) -> int | None:
    """The descriptor of a locked file; None if another run has it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user's run has left it
            descriptor = os.open(path, os.O_RDONLY)
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(descriptor)
                return None
        # Another run may have ended, and removed the file, between both calls.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _beside(path: Path, ending: str) -> Path:
    """A hidden file beside another, or in a folder; its name is short, for that of the other may be the longest."""
    name = b"" if path.is_dir() else os.fsencode(os.path.normcase(path.name))
    folder = path if path.is_dir() else path.parent
    return folder / f".dap-{hashlib.sha256(name).hexdigest()[:16]}{ending}"


def write_files(contents: Mapping[Path, Content]) -> None:
    """Write several files so that all appear, complete, or none does.

    Each is written beside its destination under a temporary name, by a function into a stream opened ``w+b`` where it
    is too long for memory; only when all are on disk are they renamed, and should that fail half-way, what was there
    before comes back. Raises ``OutputError`` where the disk refuses; whatever is raised, no temporary file is left.
    """
    parts = {path: _beside(path, f"-{os.getpid()}.part") for path in contents}
    before = {path: _beside(path, f"-{os.getpid()}.before.part") for path in contents if os.path.lexists(path)}
    begun: list[Path] = []
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with parts[path].open("w+b") as file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, old in before.items():
            with contextlib.suppress(OSError):  # a file that only its owner may read stays so
                shutil.copymode(path, parts[path])
            with contextlib.suppress(OSError, NotImplementedError):  # not every file system knows links
                os.link(path, old, follow_symlinks=False)
        for path in contents:
            begun.append(path)
            parts[path].replace(path)
        begun.clear()
    except OutputError:
        raise  # an OSError too, but one that says what to do
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        for path in begun:
            with contextlib.suppress(OSError):
                if path in before:
                    before[path].replace(path)
                else:
                    path.unlink()
        for part in (*parts.values(), *before.values()):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
