"""Finished segments: kept in memory, or in a folder from which an interrupted run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from dapcli.errors import InterruptedRunError, OutputError, SettingsError
from dapcli.fit import Iteration
from dapcli.pipeline.solver import SegmentFit, Weights

_RUN = "run.json"
_WEIGHTS = "weights.npz"


@dataclass(frozen=True)
class FittedSegment:
    """A finished segment: its estimate ``[K, C, n]`` at the recording's rate and, unless it is silent, its fit."""

    estimate: NDArray[np.float32]
    fit: SegmentFit | None


class Store:
    """Where finished segments wait until they are joined: in memory.

    Several threads may call it, each for its own segment.
    """

    def __init__(self) -> None:
        self._segments: dict[int, FittedSegment] = {}
        self._weights: Weights | None = None

    def begin(self, count: int) -> None:
        """Begin a run of so many segments, whose settings were checked."""

    def load_weights(self) -> Weights | None:
        """Weights of the pretrained network, None if they are not there."""
        return self._weights

    def save_weights(self, weights: Weights) -> None:
        """Keep the weights of the pretrained network."""
        self._weights = weights

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment, None if it is not there."""
        return self._segments.get(index)

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        self._segments[index] = segment


class FolderStore(Store):
    """A store that keeps the segments of a long recording in a folder, which appears with the first of them.

    A context: the folder is removed when all went well, and kept with every other end if it holds finished segments.
    A file in it is whole or not there, and one that cannot be read counts as not there. A recording of one segment
    takes no folder.

    ``fingerprint`` returns all that decides the segments, as JSON can hold it. Raises, from ``begin`` on:

    - ``OutputError``: The folder is there from an interrupted run, and neither ``resume`` nor ``overwrite`` is true; or
      it cannot be written.
    - ``SettingsError``: It belongs to another run.
    - ``InterruptedRunError``: In place of ``KeyboardInterrupt``, when segments were kept.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Callable[[], Mapping[str, Any]],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        self.folder = folder
        self._fingerprint = fingerprint
        self._resume, self._overwrite = resume, overwrite
        self._run: dict[str, Any] = {}
        self._count = 1
        self._writing = threading.Lock()

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._count == 1:
            return
        kept = len(self)
        if kind is None or not kept:
            self.remove()
        elif isinstance(error, KeyboardInterrupt):
            raise InterruptedRunError(
                f"interrupted; {kept} of {self._count} segments are kept in {self.folder}; "
                "repeat the command with --resume to go on, or delete that folder"
            ) from None

    def __len__(self) -> int:
        """Number of finished segments in the folder."""
        return len(list(self.folder.glob("segment-*.npz")))

    def begin(self, count: int) -> None:
        """Begin a run of so many segments: go on from the folder, or start again."""
        if self.folder.exists() and not self._resume:
            if not self._overwrite:
                raise OutputError(
                    f"{self.folder}: was left by an interrupted run; add --resume to go on from there, "
                    "or --overwrite to start again"
                )
            self.remove()
        if count == 1:
            return
        self._run = json.loads(json.dumps(self._fingerprint()))
        if self.folder.exists():
            self._refuse_another_run()
        self._count = count

    def load_weights(self) -> Weights | None:
        """Weights of the pretrained network."""
        if self._count == 1:
            return super().load_weights()
        arrays = self._read(_WEIGHTS)
        return None if arrays is None else {name: torch.from_numpy(values) for name, values in arrays.items()}

    def save_weights(self, weights: Weights) -> None:
        """Keep the weights of the pretrained network."""
        if self._count == 1:
            super().save_weights(weights)
        else:
            self._write(_WEIGHTS, {name: values.numpy() for name, values in weights.items()})

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment."""
        if self._count == 1:
            return super().load(index)
        arrays = self._read(_name(index))
        if arrays is None or not {"estimate", "fit"} <= arrays.keys():
            return None
        fit = json.loads(str(arrays["fit"]))
        if fit:
            iterations = tuple(Iteration(**each) for each in fit["iterations"])
            fit = SegmentFit(**{**fit, "iterations": iterations, "notes": tuple(fit["notes"])})
        return FittedSegment(arrays["estimate"], fit)

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        if self._count == 1:
            super().save(index, segment)
        else:
            fit = json.dumps(segment.fit and asdict(segment.fit))
            self._write(_name(index), {"estimate": segment.estimate, "fit": np.array(fit)})

    def remove(self) -> None:
        """Remove the folder; should it hold files that no store made, it stays with those."""
        for pattern in ("segment-*.npz*", f"{_WEIGHTS}*", f"{_RUN}*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _refuse_another_run(self) -> None:
        try:
            found = json.loads((self.folder / _RUN).read_text())
        except (OSError, ValueError):
            found = {}
        if not isinstance(found, dict):
            found = {}
        names = sorted(name for name in {*found, *self._run} if found.get(name) != self._run.get(name))
        if names:
            raise SettingsError(
                f"{self.folder}: belongs to a run with another {', '.join(names)}; "
                "repeat that command with --resume, or start again with --overwrite"
            )

    def _read(self, name: str) -> dict[str, NDArray[Any]] | None:
        try:
            with (self.folder / name).open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None

    def _write(self, name: str, arrays: Mapping[str, Any]) -> None:
        try:
            with self._writing:
                self.folder.mkdir(exist_ok=True)
                if not (self.folder / _RUN).exists():
                    self._place(_RUN, lambda file: file.write(json.dumps(self._run).encode()))
                self._place(name, lambda file: np.savez(file, **arrays))
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror}); "
                "make room and add --resume, or choose another folder"
            ) from error

    def _place(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / name)


def _name(index: int) -> str:
    return f"segment-{index:05d}.npz"
