"""Finished segments: kept in memory, or in a folder from which an interrupted restoration goes on."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dapcli.errors import OutputError, SettingsError
from dapcli.fit import Step
from dapcli.tasks import SegmentFit, Weights


@dataclass(frozen=True)
class FittedSegment:
    """A finished segment: its estimate ``[C, n]`` at the recording's rate and, unless it is silent, its fit."""

    estimate: NDArray[np.float32]
    fit: SegmentFit | None


class Store(Protocol):
    """Where finished segments wait until they are joined; several threads may call it, each for its own segment."""

    def load_weights(self) -> Weights | None:
        """What the network has learned from the recording, None if that is not there."""
        ...

    def save_weights(self, weights: Weights) -> None:
        """Keep what the network has learned."""
        ...

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment, None if it is not there."""
        ...

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        ...


class MemoryStore:
    """A store for recordings that are short enough."""

    def __init__(self) -> None:
        self._segments: dict[int, FittedSegment] = {}
        self._weights: Weights | None = None

    def load_weights(self) -> Weights | None:
        """What the network has learned."""
        return self._weights

    def save_weights(self, weights: Weights) -> None:
        """Keep what the network has learned."""
        self._weights = weights

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment."""
        return self._segments.get(index)

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        self._segments[index] = segment


class FolderStore:
    """A store in a folder, which appears with the first thing to keep.

    ``run`` is all that decides the segments, as JSON can hold it. A folder of another run is refused with
    ``SettingsError``, a folder that cannot be written with ``OutputError``. A file is whole or not there, and one that
    cannot be read counts as not there.
    """

    _RUN = "run.json"

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder = folder
        self._run = json.loads(json.dumps(run))
        self._writing = threading.Lock()
        if folder.exists():
            self._refuse_another_run()

    def __len__(self) -> int:
        """Number of finished segments."""
        return len(list(self.folder.glob("segment-*.npz")))

    def load_weights(self) -> Weights | None:
        """What the network has learned."""
        arrays = self._read("weights.npz")
        return None if arrays is None else {name: torch.from_numpy(values) for name, values in arrays.items()}

    def save_weights(self, weights: Weights) -> None:
        """Keep what the network has learned."""
        self._write("weights.npz", {name: values.numpy() for name, values in weights.items()})

    def load(self, index: int) -> FittedSegment | None:
        """A finished segment."""
        arrays = self._read(_name(index))
        if arrays is None or not {"estimate", "fit"} <= arrays.keys():
            return None
        fit = json.loads(str(arrays["fit"]))
        if fit:
            steps = tuple(Step(**step) for step in fit["steps"])
            fit = SegmentFit(**{**fit, "steps": steps, "notes": tuple(fit["notes"])})
        return FittedSegment(arrays["estimate"], fit)

    def save(self, index: int, segment: FittedSegment) -> None:
        """Keep a finished segment."""
        fit = json.dumps(segment.fit and asdict(segment.fit))
        self._write(_name(index), {"estimate": segment.estimate, "fit": np.array(fit)})

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove a store's folder; should it hold files that no store made, it stays with those."""
        for pattern in ("segment-*.npz*", "weights.npz*", f"{FolderStore._RUN}*"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _refuse_another_run(self) -> None:
        try:
            found = json.loads((self.folder / self._RUN).read_text())
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
                if not (self.folder / self._RUN).exists():
                    self._place(self._RUN, lambda file: file.write(json.dumps(self._run).encode()))
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
