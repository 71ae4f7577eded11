"""Finished segments: kept in memory, or in a folder from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import json
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dapcli.audio.files import write_files
from dapcli.errors import InterruptedRunError, OutputError, SettingsError
from dapcli.fit import Iteration
from dapcli.pipeline.solver import SegmentFit, Weights

_RUN, _WEIGHTS, _SEGMENTS = "run.json", "weights.npz", "segment-*.npz"


@dataclass(frozen=True)
class FittedSegment:
    """A finished segment: its estimate ``[K, C, n]`` at the recording's rate and, unless it is silent, its fit."""

    estimate: NDArray[np.float32]
    fit: SegmentFit | None


class Store:
    """Where finished segments wait until they are joined; several threads may call it, each for its own segment.

    Without a folder, and for a recording of one segment, that is memory. The folder appears with the first segment.
    The store is a context: the folder is removed when all went well, and kept with every other end if it holds
    finished segments. A file in it is whole or not there, and one that cannot be read counts as not there.

    ``fingerprint`` returns all that decides the segments, as JSON can hold it. Raises, from ``begin`` on:

    - ``OutputError``: The folder is there from an interrupted run, and neither ``resume`` nor ``overwrite`` is true; or
      it cannot be written.
    - ``SettingsError``: It belongs to another run.
    - ``InterruptedRunError``: In place of ``KeyboardInterrupt``, when segments were kept.
    """

    def __init__(
        self,
        folder: Path | None = None,
        fingerprint: Callable[[], Mapping[str, Any]] = dict,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._given = folder
        #: None while segments are kept in memory.
        self._folder: Path | None = None
        self._fingerprint = fingerprint
        self._resume, self._overwrite = resume, overwrite
        self._count = 1
        self._memory: dict[str, Mapping[str, Any]] = {}
        self._writing = threading.Lock()

    def begin(self, count: int) -> None:
        """Begin a run of so many segments, whose settings were checked: go on from the folder, or start again."""
        folder = self._given
        if folder is not None and folder.exists() and not self._resume:
            if not self._overwrite:
                raise OutputError(
                    f"{folder}: was left by an interrupted run; add --resume to go on from there, "
                    "or --overwrite to start again"
                )
            self._remove(folder)
        if folder is not None and count > 1:
            if folder.exists():
                self._refuse_another_run(folder)
            self._folder, self._count = folder, count

    def load_weights(self) -> Weights | None:
        """Weights of the pretrained network, None if they are not there."""
        arrays = self._read(_WEIGHTS)
        return None if arrays is None else {name: torch.from_numpy(values) for name, values in arrays.items()}

    def save_weights(self, weights: Weights) -> None:
        """Keep the weights of the pretrained network."""
        self._write(_WEIGHTS, {name: values.numpy() for name, values in weights.items()})

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment, None if it is not there."""
        arrays = self._read(_SEGMENTS.replace("*", f"{index:05d}"))
        if arrays is None or not {"estimate", "fit"} <= arrays.keys():
            return None
        fit = json.loads(str(arrays["fit"]))
        if fit:
            iterations = tuple(Iteration(**each) for each in fit["iterations"])
            tuples = {"iterations": iterations, "noise": tuple(map(tuple, fit["noise"])), "notes": tuple(fit["notes"])}
            fit = SegmentFit(**{**fit, **tuples})
        return FittedSegment(arrays["estimate"], fit)

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        fit = json.dumps(segment.fit and asdict(segment.fit))
        self._write(_SEGMENTS.replace("*", f"{index:05d}"), {"estimate": segment.estimate, "fit": np.array(fit)})

    def __len__(self) -> int:
        """Number of finished segments."""
        names = list(self._memory) if self._folder is None else [path.name for path in self._folder.glob("*")]
        return sum(fnmatch(name, _SEGMENTS) for name in names)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._folder is None:
            return
        kept = len(self)
        if kind is None or not kept:
            self._remove(self._folder)
        elif isinstance(error, KeyboardInterrupt):
            raise InterruptedRunError(
                f"interrupted; {kept} of {self._count} segments are kept in {self._folder}; "
                "repeat the command with --resume to go on, or delete that folder"
            ) from None

    @staticmethod
    def _remove(folder: Path) -> None:
        """Remove a folder; should it hold files that no store made, it stays with those."""
        for pattern in (_SEGMENTS, _WEIGHTS, _RUN, ".dap-*.part"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _refuse_another_run(self, folder: Path) -> None:
        try:
            found = json.loads((folder / _RUN).read_text())
        except (OSError, ValueError):
            found = None
        found = found if isinstance(found, dict) else {}
        wanted = json.loads(json.dumps(self._fingerprint()))
        names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        if names:
            raise SettingsError(
                f"{folder}: belongs to a run with another {', '.join(names)}; "
                "repeat that command with --resume, or start again with --overwrite"
            )

    def _read(self, name: str) -> Mapping[str, Any] | None:
        if self._folder is None:
            return self._memory.get(name)
        try:
            with (self._folder / name).open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None

    def _write(self, name: str, arrays: Mapping[str, Any]) -> None:
        folder = self._folder
        if folder is None:
            self._memory[name] = arrays
            return
        try:
            # One at a time, for names of files that are being written are those of the process.
            with self._writing:
                folder.mkdir(exist_ok=True)
                if not (folder / _RUN).exists():
                    write_files({folder / _RUN: json.dumps(self._fingerprint()).encode()})
                write_files({folder / name: lambda file: np.savez(file, **arrays)})
        except OSError as error:
            reason = getattr(error.__cause__, "strerror", error.strerror)
            raise OutputError(
                f"{folder}: cannot be written ({reason}); make room and add --resume, or choose another folder"
            ) from error
