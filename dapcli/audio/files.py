"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from dapcli.errors import OutputError

#: What a file is to hold, or a function that writes it into a stream.
Content = bytes | Callable[[BinaryIO], None]


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check, before hours of work, that a file can be written.

    Raises:
        OutputError: The folder is missing or read-only, or the file exists and ``overwrite`` is false.
    """
    folder = path.parent
    try:
        path.lstat()
        exists = True
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except OSError as error:  # its name is too long, for one
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another name") from error
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; create it first")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if exists and not overwrite:
        raise OutputError(f"{path}: already exists; add --overwrite to replace it")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: is read-only; choose another folder")


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
        raise OutputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # what was written there keeps it
                folder.rmdir()


def write_files(contents: Mapping[Path, Content]) -> None:
    """Write several files so that all appear, complete, or none does.

    Each is written beside its destination under a temporary name; only when all are on disk are they renamed. A file
    too long for memory is given as a function that writes it into a stream, opened ``w+b``.

    Raises:
        OutputError: The disk is full or refuses for another reason. Whatever is raised, no temporary file is left.
    """
    # Short names, for a destination may have the longest that the file system allows.
    parts = {path: path.with_name(f".dap-{os.getpid()}-{index}.part") for index, path in enumerate(contents)}
    try:
        for path, content in contents.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with parts[path].open("w+b") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            parts[path].replace(path)
    except OutputError:
        raise  # an OSError too, but one that says what to do
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
