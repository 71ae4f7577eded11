"""The result of a run: estimates that are read block by block from finished segments, and how they came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dapcli.audio import Audio, Samples, full_scale_gain, output_format, write_audio
from dapcli.audio.files import Content, check_writable, write_files
from dapcli.audio.recording import blocks
from dapcli.audio.view import View
from dapcli.audio.writing import step_of
from dapcli.errors import SettingsError
from dapcli.fit import Iteration
from dapcli.pipeline.segments import Joined
from dapcli.pipeline.solver import SegmentFit
from dapcli.settings import Settings
from dapcli.signal.stft import STFT

#: See :meth:`dapcli.pipeline.solver.Solver.finalise`.
Finalise = Callable[[Samples, Samples, int, float, "float | None"], Samples]


@dataclass(frozen=True)
class Estimates(Sequence["Restored"]):
    """The K sources of a recording, read together from ``joined`` segments, and each of them a recording.

    ``source`` is the view of the recording that they were estimated from, with which ``finalise`` makes them
    consistent; ``gain`` scales all of them.
    """

    joined: Joined
    source: View
    finalise: Finalise
    types: tuple[str, ...]
    rate: int
    channels: int
    length: int
    subtype: str
    format: str
    gain: float = 1.0

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[K, C, stop - start]`` of all sources."""
        estimate, observed = self.joined.read(start, stop), self.source.read(start, stop)
        gain = self.gain / self.source.gain
        return self.source.every_channel(self.finalise(estimate, observed, start, gain, step_of(self.subtype)))

    def as_file(self, container: str, subtype: str) -> Estimates:
        """The estimates in another format and subtype, all scaled down if the peaks of one would not fit in there."""
        peak = max(float(np.abs(block).max()) for block in blocks(self)) / self.gain
        return replace(self, format=container, subtype=subtype, gain=full_scale_gain(peak, subtype))

    def __len__(self) -> int:
        """Number of sources K."""
        return len(self.types)

    def __getitem__(self, index: int) -> Restored:  # type: ignore[override]
        """One source."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Restored(self, index)


class Restored:
    """One of the estimates: a recording ``[C, N]``, scaled by ``gain``."""

    def __init__(self, estimates: Estimates, index: int) -> None:
        self.rate, self.channels, self.length = estimates.rate, estimates.channels, estimates.length
        self.subtype, self.format, self.gain = estimates.subtype, estimates.format, estimates.gain
        self._estimates = estimates
        self._index = index

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``."""
        return np.asarray(self._estimates.read(start, stop)[self._index])

    @property
    def audio(self) -> Audio:
        """The recording in memory."""
        return Audio(self.read(0, self.length), self.rate, self.subtype, self.format)


@dataclass(frozen=True)
class Result:
    """Estimates and how they came about.

    ``estimates`` have the input's rate, channels and length. ``noise_std`` is the estimated standard deviation of the
    noise with full scale at 1, ``input_snr_db`` the recording's estimated SNR (None where no noise was removed).
    ``inconsistent`` is the fraction of the estimate's samples that the recording's degradation does not allow, before
    they were moved to where it does (None where there was none). ``rate`` is the working rate in Hz,
    ``receptive_field`` is in (s, Hz), and ``pretraining`` holds the iterations before the segments' own, which an
    earlier run may have done.
    """

    estimates: Estimates
    settings: Settings
    device: torch.device
    dtype: torch.dtype
    parallel: int
    stft: STFT
    rate: int
    receptive_field: tuple[float, float]
    segments: tuple[SegmentFit, ...]
    pretraining: tuple[Iteration, ...]
    pretraining_seconds: float
    noise_std: float | None
    input_snr_db: float | None
    inconsistent: float | None
    seconds: float
    notes: tuple[str, ...]

    def save(self, *paths: str | Path, overwrite: bool = False) -> float:
        """Write each estimate to a file of its own, all of them or none; their extension is their format.

        Returns:
            The gain of all of them: below 1 where an integer format would not have held their peaks.

        Raises:
            SettingsError: There are more or fewer paths than estimates, or their extension stands for no one format
                that can hold them.
            OutputError: A file is there and ``overwrite`` is false, or it cannot be written.
        """
        files = [Path(path) for path in paths]
        if len(set(files)) != len(self.estimates):
            raise SettingsError(
                f"there are {len(self.estimates)} estimates; give a path for each, not {len(set(files))}"
            )
        formats = {output_format(path, self.estimates) for path in files}
        if len(formats) > 1:
            raise SettingsError("the paths have several extensions; give one format for all estimates")
        for path in files:
            check_writable(path, overwrite=overwrite)
        written = self.estimates.as_file(*formats.pop())
        contents: list[Content] = [partial(write_audio, recording=each) for each in written]
        write_files(dict(zip(files, contents, strict=True)))
        return written.gain

    @property
    def restored(self) -> Restored:
        """The estimate, the first where there are several."""
        return self.estimates[0]

    @property
    def audio(self) -> Audio:
        """The estimate in memory, the first where there are several."""
        return self.restored.audio
