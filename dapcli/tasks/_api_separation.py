"""Separate a mixture into its sources: the same fits as for restorations, with several recordings to come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dapcli.audio import Audio, Recording, Samples, full_scale_gain
from dapcli.audio.recording import blocks
from dapcli.audio.writing import step_of
from dapcli.errors import InputError, SettingsError
from dapcli.objectives import SEPARATION_ESTIMATORS
from dapcli.pipeline.result import Result, fit_recording
from dapcli.pipeline.run import Progress
from dapcli.pipeline.store import Store
from dapcli.settings import SEPARATION_PRESETS, Settings
from dapcli.signal.source_types import ANY_TYPE, DEFAULT_TYPES, check_types
from dapcli.signal.stft import STFT
from dapcli.tasks import Separator
from dapcli.tasks._api_restore import check_settings


class Sources:
    """The sources of a mixture, read together, block by block, and scaled by one ``gain``.

    ``fitted`` has them one after the other, as channels ``[K * C, N]``. Where they are ``consistent``, they sum to the
    mixture: the little that they leave of it is shared out equally, and what an integer subtype rounds off one source
    is added to the next.
    """

    def __init__(
        self,
        fitted: Recording,
        mixture: Recording,
        *,
        consistent: bool,
        subtype: str,
        container: str,
        gain: float = 1.0,
    ) -> None:
        self.rate, self.channels, self.length = mixture.rate, mixture.channels, mixture.length
        self.subtype, self.format, self.gain = subtype, container, gain
        self._fitted = fitted
        self._mixture = mixture
        self._consistent = consistent

    def __len__(self) -> int:
        """Number of sources K."""
        return self._fitted.channels // self.channels

    def __getitem__(self, index: int) -> Source:
        """One source, as a recording."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Source(self, index)

    def __iter__(self) -> Iterator[Source]:
        """All sources, as recordings."""
        return (self[index] for index in range(len(self)))

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[K, C, stop - start]`` of all sources."""
        sources: Samples = self._fitted.read(start, stop).reshape(len(self), self.channels, -1) * self.gain
        if not self._consistent:
            return sources
        mixture = self._mixture.read(start, stop) * self.gain
        sources = sources + (mixture - sources.sum(axis=0)) / len(self)
        step = step_of(self.subtype)
        if step:
            rest = np.zeros_like(mixture)
            for source in sources:
                wanted = source + rest
                source[:] = np.round(wanted / step) * step
                rest = wanted - source
        return sources

    def as_file(self, container: str, subtype: str) -> Sources:
        """The same for another format and subtype, all scaled down if the peaks of one would not fit in there."""
        peak = max(float(np.abs(block).max()) for block in blocks(self)) / self.gain
        return Sources(
            self._fitted,
            self._mixture,
            consistent=self._consistent,
            subtype=subtype,
            container=container,
            gain=full_scale_gain(peak, subtype),
        )


class Source:
    """One of the sources of a mixture: a recording ``[C, N]``."""

    def __init__(self, sources: Sources, index: int) -> None:
        self.rate, self.channels, self.length = sources.rate, sources.channels, sources.length
        self.subtype, self.format = sources.subtype, sources.format
        self._sources = sources
        self._index = index

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``."""
        samples: Samples = self._sources.read(start, stop)[self._index]
        return samples


@dataclass(frozen=True)
class Separation:
    """The sources of a mixture, of these ``kinds``, and how the fits went.

    ``result.restored`` has the sources before they are made to sum to the mixture to the last bit.
    """

    sources: Sources
    kinds: tuple[str, ...]
    result: Result

    @property
    def audio(self) -> tuple[Audio, ...]:
        """The sources in memory."""
        samples = self.sources.read(0, self.sources.length)
        return tuple(Audio(source, self.sources.rate, self.sources.subtype, self.sources.format) for source in samples)


class Stacked:
    """Recordings of the same shape as one, ``[K * C, N]``."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        first = recordings[0]
        self.rate, self.subtype, self.format, self.length = first.rate, first.subtype, first.format, first.length
        self.channels = sum(recording.channels for recording in recordings)
        self._recordings = recordings

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[K * C, stop - start]``."""
        return np.concatenate([recording.read(start, stop) for recording in self._recordings])


def separate(
    recording: Recording,
    kinds: Sequence[str] = DEFAULT_TYPES[2],
    settings: Settings | None = None,
    *,
    consistent: bool = True,
    device: str = "auto",
    parallel: int | None = None,
    references: Sequence[Recording] | None = None,
    on_step: Callable[[Progress], None] | None = None,
    store: Store | None = None,
) -> Separation:
    """Separate a mixture into sources.

    A recording longer than ``settings.segment`` is separated in segments; sources of one kind are matched from segment
    to segment by what they have in common. The estimator ``paper`` knows nothing of kinds: all its sources are of one,
    :data:`~dapcli.source_kinds.ANY_TYPE`, and come in any order.

    Args:
        recording: The mixture, ``[C, N]``.
        kinds: What each of the two to four sources is, see :data:`dapcli.source_kinds.SOURCE_TYPES`; one kind may come twice.
            The estimator ``paper`` only counts them.
        settings: What to do; the ``quality`` preset of ``share`` by default.
        consistent: Make the sources sum to the mixture. Those of ``paper`` do not by themselves: the mixture is then
            shared out by a Wiener filter of each. Those of ``share`` always do.
        device: As for :func:`dapcli.denoise`, like the arguments that follow.
        parallel: See there.
        references: The sources as they were, ``[C, N]`` each, for the ``oracle`` stopping rule only; in any order for
            those of one kind.
        on_step: See there.
        store: See there.

    Raises:
        SettingsError: A kind or a setting is unknown, or they do not go together.
        InputError: The recording is silent, or it or the references cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    settings = settings or SEPARATION_PRESETS["share"]["quality"]
    check_types(kinds)
    where, dtype = check_separation(
        settings, device, consistent=consistent, has_reference=references is not None, parallel=parallel
    )
    if SEPARATION_ESTIMATORS[settings.estimator].generates:
        kinds = (ANY_TYPE,) * len(kinds)
    if references is not None and len(references) != len(kinds):
        raise InputError(f"{len(references)} references for {len(kinds)} sources; give one for each")
    if not any(block.any() for block in blocks(recording)):
        raise InputError("the mixture is silent; there is nothing to separate")
    rate = settings.rate or recording.rate
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    kinds = tuple(kinds)
    engine = Separator(
        settings=settings, stft=stft, rate=rate, device=where, dtype=dtype, kinds=kinds, consistent=consistent
    )
    reference = None if references is None else Stacked(references)
    result = fit_recording(recording, engine, parallel, reference, on_step, store, kinds=kinds)
    sources = Sources(
        result.restored, recording, consistent=consistent, subtype=recording.subtype, container=recording.format
    )
    return Separation(sources, kinds, result)


def check_separation(
    settings: Settings, device: str, *, consistent: bool, has_reference: bool, parallel: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """Check what :func:`separate` would only find out on its way, and return the device and the type to compute in.

    Raises:
        SettingsError: A name is unknown, or a setting has no effect here.
        DeviceError: The device is not there.
    """
    checked = check_settings(settings, device, SEPARATION_ESTIMATORS, {"reference": has_reference}, parallel=parallel)
    if settings.post_filter != "none":
        raise SettingsError("--post-filter removes noise, and a separation keeps all that it is given; use none")
    if not (consistent or SEPARATION_ESTIMATORS[settings.estimator].generates):
        raise SettingsError("--no-consistent belongs to --method paper; the shares of a mixture always sum to it")
    return checked
