"""The files that files, folders, patterns and manifests stand for."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dapcli.errors import InputError

# What is looked for in folders; a file that is named is read whatever its extension.
_EXTENSIONS = {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
# The column of a manifest that holds paths, and its first one if it has no header.
_PATH = "path"


@dataclass(frozen=True)
class Listed:
    """A file, and its place below the folder, the pattern or the manifest that stands for it.

    ``values`` are the other cells of its line of a manifest by their columns, ``line`` is where that is, and
    ``folder`` what other paths in it are relative to.
    """

    path: Path
    place: Path
    values: Mapping[str, str] = field(default_factory=dict)
    line: str = ""
    folder: Path = Path()


def list_files(paths: Sequence[Path], *, outside: Path) -> Iterator[Listed]:
    """The files that files, folders, patterns and manifests stand for.

    A folder stands for all audio below it, but for what is in ``outside``: where results go is no place to find files.
    So does a pattern, such as ``noisy/**/*.wav``, for the files and folders that it matches. A manifest is a CSV with
    a path, relative to its own folder, in every line: in its first column, or in the column ``path`` of its header.

    Raises:
        InputError: One does not exist or holds no audio.
    """
    results = outside.resolve()
    for path in paths:
        if results in (real := path.resolve(), *real.parents):
            raise InputError(f"{path}: is where results go; name another --output-dir")
        empty = True
        for each in _files_of(path):
            if results not in each.path.resolve().parents:
                empty = False
                yield each
        if empty:
            raise InputError(f"{path}: no audio files in it; name files, folders or a CSV with a path per line")


def _files_of(path: Path) -> Iterator[Listed]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in _EXTENSIONS and not file.name.startswith(".") and file.is_file():
                yield Listed(file, file.relative_to(path))
    elif path.exists():
        yield from _listed(path) if path.suffix.lower() == ".csv" else [Listed(path, Path(path.name))]
    elif found := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - pathlib takes no absolute patterns
        plain = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
        base = Path(*path.parts[:plain])
        for match in map(Path, found):
            yield from (Listed(each.path, each.path.relative_to(base)) for each in _files_of(match))
    else:
        raise InputError(f"{path}: no such file or folder")


def _listed(manifest: Path) -> Iterator[Listed]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.reader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{manifest}: cannot be read as CSV ({error})") from error
    columns = [_PATH]
    for number, row in enumerate(rows, 1):
        line = f"{manifest}: line {number}"
        if number == 1 and (_PATH in row or len(row) > 1):
            columns = row
            if columns.count(_PATH) != 1:
                raise InputError(f"{line}: the columns are {', '.join(row)}; one of them must be {_PATH}")
        elif row:
            if len(row) > len(columns):
                raise InputError(f"{line}: {len(row)} cells for {len(columns)} columns; put text with commas in quotes")
            values = dict(zip(columns, row, strict=False))
            name = values.pop(_PATH, "")
            file = manifest.parent / name
            if not file.is_file():
                raise InputError(f"{line}: no such file {file}")
            inside = not Path(name).is_absolute() and ".." not in Path(name).parts
            yield Listed(file, Path(name if inside else file.name), values, line, manifest.parent)
