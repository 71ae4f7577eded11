"""Writing: all files appear, complete, or none does, and what was there before survives a failure."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest

from dapcli.audio.files import check_writable, claim, write_files
from dapcli.errors import OutputError

DISK_FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def tree(folder: Path) -> dict[str, bytes]:
    """Name and content of every file, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_all_files_are_written_in_place_of_old_ones_and_nothing_else(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"head and body")
        stream.seek(0)
        assert stream.read(4) == b"head"
        stream.seek(0)
        stream.write(b"HEAD")

    longest = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    (tmp_path / "a").write_bytes(b"a longer text than the new one")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    contents = {"a": b"one", "b": b"", longest: bytes(100_000), "link": b"new"}
    write_files({tmp_path / name: content for name, content in contents.items()} | {tmp_path / "d": write})
    assert tree(tmp_path) == {**contents, "d": b"HEAD and body"}
    assert not (tmp_path / "link").is_symlink()


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes(b"old")
    private.chmod(0o600)
    write_files({private: b"new"})
    assert (private.read_bytes(), private.stat().st_mode & 0o777) == (b"new", 0o600)


@pytest.mark.parametrize(
    ("error", "reported", "message"),
    [
        (DISK_FULL, OutputError, os.strerror(errno.ENOSPC)),
        (OutputError("cannot be encoded; choose another extension"), OutputError, "^cannot be encoded; choose another"),
        (ValueError("of its own"), ValueError, "of its own"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["function", "first fsync", "second fsync"])
def test_whatever_fails_leaves_what_was_there(
    place: str,
    error: BaseException,
    reported: type[BaseException],
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        if place == "function":
            raise error

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if place == ("first fsync", "second fsync")[len(calls) - 1]:
            raise error

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "a").write_bytes(b"old a")
    with pytest.raises(reported, match=message) as caught:
        write_files({tmp_path / "a": b"one", tmp_path / "b": write})
    assert tree(tmp_path) == {"a": b"old a"}
    if error is DISK_FULL:
        assert str(caught.value).startswith(str(tmp_path / ("a" if place == "first fsync" else "b")))


@pytest.mark.parametrize("error", [DISK_FULL, KeyboardInterrupt()], ids=repr)
def test_a_renaming_that_fails_half_way_is_undone(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse_last(path: Path, target: Path) -> Path:
        replace(path, target)
        if target.name == "last" and target.read_bytes() == b"new":
            raise error
        return target

    monkeypatch.setattr(Path, "replace", refuse_last)
    before = {"old": b"old", "last": b"old last"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OutputError):
        write_files({tmp_path / name: b"new" for name in ("old", "first", "last")})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", ["folder", "missing/b"])
def test_a_place_that_no_file_can_have_is_left_alone(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_bytes(b"inside")
    with pytest.raises(OutputError):
        write_files({tmp_path / "a": b"one", tmp_path / place: b"two"})
    assert tree(tmp_path) == {}
    assert tree(tmp_path / "folder") == {"inside": b"inside"}


def test_a_disk_that_really_refuses_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    code = """
import resource, signal, sys
from pathlib import Path
from dapcli.audio.files import write_files
from dapcli.errors import OutputError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
try:
    write_files({folder / "small": bytes(10), folder / "large": bytes(2000)})
except OutputError as error:
    print(error)
"""
    (tmp_path / "large").write_bytes(b"old")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert os.strerror(errno.EFBIG) in run.stdout
    assert tree(tmp_path) == {"large": b"old"}


@pytest.mark.parametrize(
    ("name", "overwrite", "reason"),
    [
        ("new", False, None),
        ("file", False, "--overwrite"),
        ("file", True, None),
        ("link", False, "--overwrite"),  # to nowhere
        ("missing/new", True, "no such folder"),
        ("file/new", True, "no such folder"),
        ("folder", True, "is a folder"),
        ("n" * 300, True, "cannot be written"),
    ],
)
def test_impossible_places_are_refused_beforehand(
    name: str, overwrite: bool, reason: str | None, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=reason) if reason else nullcontext():
        check_writable(tmp_path / name, overwrite=overwrite)
    assert tree(tmp_path) == {"file": b"old"}


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    with pytest.raises(OutputError, match="read-only"):
        check_writable(tmp_path / "new", overwrite=False)


# Claims


def another_name(path: Path, folder: Path) -> Path:
    (folder / "link").symlink_to(path.parent)
    return folder / "link" / ".." / path.parent.name / path.name


@pytest.mark.parametrize("name", ["out.wav", "folder", "n" * 255])
def test_what_is_claimed_is_refused_by_any_name_until_it_is_free(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "folder").mkdir(parents=True)
    path = tmp_path / "in" / name
    monkeypatch.chdir(tmp_path / "in")
    with claim(path):
        for other in (path, Path(name), another_name(path, tmp_path)):
            with pytest.raises(OutputError, match="is being written by another run"), claim(other):
                pass
        with claim(path.with_name("other")):
            pass
    with claim(path):
        pass
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_a_killed_run_leaves_nothing_that_outlives_the_next(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from dapcli.audio.files import claim, write_files

path, other = Path(sys.argv[1]), Path(sys.argv[2])
with claim(path), claim(other):
    write_files({other: b"", path: lambda stream: os.kill(os.getpid(), 9)})
"""
    path = tmp_path / "out.wav"
    subprocess.run([sys.executable, "-c", code, path, tmp_path / "other.wav"], check=False)
    assert len(tree(tmp_path)) == 4
    with claim(path):
        write_files({path: b"new"})
    left = tree(tmp_path)
    assert left.pop("out.wav") == b"new"
    assert len(left) == 2  # those of the other file
