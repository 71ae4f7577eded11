"""Writing: all files appear, complete, or none does, and what was there before survives a failure."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from dapcli.audio.files import check_writable, write_files
from dapcli.errors import OutputError

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def tree(folder: Path) -> dict[str, bytes]:
    """Name and content of every file, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def fail_fsync(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """Let the given call of fsync fail, counted from 1."""
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call:
            raise error

    monkeypatch.setattr(os, "fsync", fsync)


def test_all_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    write_files({tmp_path / "a": b"one", tmp_path / "b": b"", tmp_path / "c": bytes(100_000)})
    assert tree(tmp_path) == {"a": b"one", "b": b"", "c": bytes(100_000)}


def test_a_function_writes_its_file_itself(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"head and body")
        stream.seek(0)
        assert stream.read(4) == b"head"
        stream.seek(0)
        stream.write(b"HEAD")

    write_files({tmp_path / "a": write, tmp_path / "b": b"two"})
    assert tree(tmp_path) == {"a": b"HEAD and body", "b": b"two"}


@pytest.mark.parametrize(
    ("error", "reported", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError, os.strerror(errno.ENOSPC)),
        (OutputError("cannot be encoded; choose another extension"), OutputError, "^cannot be encoded; choose another"),
        (ValueError("of its own"), ValueError, "of its own"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=repr,
)
def test_a_function_that_fails_leaves_nothing(
    error: BaseException, reported: type[BaseException], message: str | None, tmp_path: Path
) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise error

    (tmp_path / "a").write_bytes(b"old a")
    with pytest.raises(reported, match=message):
        write_files({tmp_path / "a": b"one", tmp_path / "b": write})
    assert tree(tmp_path) == {"a": b"old a"}


def test_existing_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a longer text than the new one")
    write_files({tmp_path / "a": b"new", tmp_path / "b": b"b"})
    assert tree(tmp_path) == {"a": b"new", "b": b"b"}


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    write_files({tmp_path / "a": b"new"})
    assert tree(tmp_path) == {"a": b"new", "target": b"target"}
    assert not (tmp_path / "a").is_symlink()


def test_the_longest_file_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_files({path: b"new"})
    assert tree(tmp_path) == {path.name: b"new"}


@pytest.mark.parametrize("call", [1, 2])
def test_full_disk_leaves_nothing(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_fsync(monkeypatch, call, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)) as caught:
        write_files({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert tree(tmp_path) == {}
    assert str(tmp_path / "ab"[call - 1]) in str(caught.value)


@pytest.mark.parametrize("call", [1, 2])
def test_existing_files_survive_a_full_disk(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old a")
    (tmp_path / "b").write_bytes(b"old b")
    fail_fsync(monkeypatch, call, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(OutputError):
        write_files({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert tree(tmp_path) == {"a": b"old a", "b": b"old b"}


def test_a_folder_in_the_place_of_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "inside").write_bytes(b"inside")
    with pytest.raises(OutputError):
        write_files({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert tree(tmp_path) == {}
    assert tree(tmp_path / "b") == {"inside": b"inside"}


def test_interruption_leaves_nothing_and_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old a")
    fail_fsync(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_files({tmp_path / "a": b"one", tmp_path / "b": b"two"})
    assert tree(tmp_path) == {"a": b"old a"}


def test_missing_folder_leaves_nothing_in_the_others(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_files({tmp_path / "a": b"one", tmp_path / "missing" / "b": b"two"})
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("large", ["bytes(2000)", "lambda stream: stream.write(bytes(2000))"])
def test_a_disk_that_really_refuses_leaves_nothing(large: str, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    code = f"""
import resource, signal, sys
from pathlib import Path
from dapcli.errors import OutputError
from dapcli.audio.files import write_files

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
try:
    write_files({{folder / "small": bytes(10), folder / "large": {large}}})
except OutputError as error:
    print(error)
"""
    (tmp_path / "large").write_bytes(b"old")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert os.strerror(errno.EFBIG) in run.stdout
    assert tree(tmp_path) == {"large": b"old"}


def test_a_new_file_in_a_folder_can_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new", overwrite=False)
    assert tree(tmp_path) == {}


def test_existing_files_need_overwrite(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    with pytest.raises(OutputError, match="--overwrite"):
        check_writable(tmp_path / "old", overwrite=False)
    check_writable(tmp_path / "old", overwrite=True)
    assert tree(tmp_path) == {"old": b"old"}


def test_a_link_to_nowhere_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="--overwrite"):
        check_writable(tmp_path / "link", overwrite=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/new", "no such folder"),
        ("file/new", "no such folder"),
        ("folder", "is a folder"),
        ("n" * 300, "cannot be written"),
    ],
)
def test_impossible_places_are_refused(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=reason):
        check_writable(tmp_path / name, overwrite=True)


def test_a_folder_without_permission_to_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(OutputError, match="read-only"):
        check_writable(tmp_path / "new", overwrite=False)


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="read-only"):
            check_writable(tmp_path / "new", overwrite=False)
        with pytest.raises(OutputError):
            write_files({tmp_path / "new": b"new"})
        assert tree(tmp_path) == {}
    finally:
        tmp_path.chmod(0o700)
