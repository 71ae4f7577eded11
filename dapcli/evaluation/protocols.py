"""Protocols: how a clean clip becomes a problem and, apart from it, the truth, with the values of the papers.

To add one, write a subclass of :class:`Protocol` and a line in ``PROTOCOLS``; its fields are its values, and options of
the command line, for which torch is not imported before a clip is degraded. The Design paper is Narayanaswamy,
Thiagarajan and Spanias, "On the Design of Deep Priors for Unsupervised Audio Restoration" (2021), the Harmonic paper
Zhang et al., "Deep Audio Priors Emerge from Harmonic Convolutional Networks" (2020).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dapcli.audio import Audio, Samples, read_audio, resample
from dapcli.audio.files import digest
from dapcli.errors import InputError, SettingsError
from dapcli.evaluation.clips import draw_start
from dapcli.settings import PAPER_RATE, Settings, check_limits, option
from dapcli.signal.gaps import Gaps
from dapcli.signal.source_types import DEFAULT_TYPES, check_types
from dapcli.tasks.problem import Problem

# Distance of the Design paper's frames, s.
_PAPER_HOP_S = 64 / PAPER_RATE
# What is known on both sides of a gap, s.
_MARGIN_S = 0.15
# Quantizers clip; so the papers' recordings do not.
_PEAK = 0.9
# The values of a range on the command line.
_RANGE = "LOW:HIGH"


@dataclass(frozen=True)
class Case:
    """A degraded clip as a blind method may know it, and apart from it the truth: references ``[K, C, N]``.

    ``notes`` are for readers.
    """

    problem: Problem[Any]
    truth: Samples
    notes: tuple[str, ...] = ()


def make_case(references: Samples, observed: Samples, rate: int, *notes: str, **known: Any) -> Case:
    """The recording ``[C, N]`` that was made of references ``[K, C, N]`` at ``rate`` Hz, and what else is known of it.

    All samples are as files hold them, so that those are heard and measured that were restored.
    """
    return Case(Problem(Audio(single(observed), rate), **known), single(references), notes)


def single(samples: Samples) -> Samples:
    """Samples as files hold them: in single precision."""
    return samples.astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Protocol(ABC):
    """How clips are degraded, and for which task.

    Raises:
        SettingsError: A value is out of range, or one is missing.
    """

    name: ClassVar[str]
    task: ClassVar[str]

    def __post_init__(self) -> None:
        check_limits(self)
        for each in fields(self):
            value, flag = getattr(self, each.name), f"--{each.name.replace('_', '-')}"
            if value == ():
                raise SettingsError(f"--protocol {self.name} needs {flag}: {each.metadata['help']}")
            least, below = each.metadata["least"], each.metadata["below"]
            if each.metadata["metavar"] == _RANGE and not least <= value[0] <= value[1] < below:
                raise SettingsError(f"{flag} {value[0]:g}:{value[1]:g} is not a range; give {_RANGE}")

    def check(self, seconds: float | None) -> None:  # noqa: B027
        """Raise ``SettingsError`` where clips of so many seconds, whole files with None, are too short."""

    @abstractmethod
    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        """The case that clean clips ``[C, N]`` make: one, or one for every source."""


@dataclass(frozen=True, kw_only=True)
class Additive(Protocol):
    """Noise that is added, some seconds of which methods may know by themselves."""

    task = "denoise"

    profile: float | None = option(None, "Seconds of the noise alone that methods know.", above=0)

    def add(self, clean: Audio, noise: Samples, *notes: str) -> Case:
        """A clean clip with noise ``[C, N]`` added to it, which ends with the clip and begins with the profile."""
        samples, lead = single(clean.samples), noise.shape[1] - clean.length
        profile = Audio(single(noise[:, :lead]), clean.rate) if lead else None
        return make_case(samples[None], samples + noise[:, lead:], clean.rate, *notes, noise_profile=profile)

    def length(self, clean: Audio) -> int:
        """Samples of noise for a clip."""
        return clean.length + round((self.profile or 0) * clean.rate)


@dataclass(frozen=True)
class Gaussian(Additive):
    """White noise: the Design paper's, and the Harmonic paper's."""

    name = "gaussian"

    noise_std: float = option(0.1, "Standard deviation, 0.1.", above=0)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        """The clip with noise added."""
        (clean,) = clips
        return self.add(clean, self.noise_std * rng.standard_normal((clean.channels, self.length(clean))))


@dataclass(frozen=True)
class Environmental(Additive):
    """A stretch of a recorded noise at an SNR drawn from a range in dB: the Design paper's."""

    name = "environmental"

    noise: tuple[Path, ...] = option((), "Folder of noise recordings.", metavar="DIR")
    snr: tuple[float, float] = option((5.0, 9.0), "Range of the SNR in dB, 5:9.", metavar=_RANGE, least=-100, below=100)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        """The clip with a stretch of a drawn noise file, which is looped where it is too short."""
        (clean,) = clips
        length = self.length(clean)
        path = self.noise[rng.integers(len(self.noise))]
        noise = read_audio(path)
        # Noise needs no more channels than one to be heard, and mixing down keeps every kind of file usable.
        samples = resample(noise.samples.mean(axis=0, keepdims=True), noise.rate, clean.rate)
        notes = [f"noise: {path.name}"]
        if samples.shape[1] < length:
            notes.append(f"noise looped: {path.name} is {samples.shape[1] / clean.rate:.2f} s long")
        start = int(rng.integers(max(1, samples.shape[1] - length + 1)))
        stretch = np.resize(samples[0, start:], length)
        power = np.mean(stretch[-clean.length :] ** 2)
        if not power:
            raise InputError(f"{path}: silent where it was to be added; remove it")
        gain = np.sqrt(np.mean(clean.samples**2) / power) * 10 ** (-rng.uniform(*self.snr) / 20)
        return self.add(clean, np.broadcast_to(gain * stretch, (clean.channels, length)), *notes)


@dataclass(frozen=True)
class Pairs(Protocol):
    """Nothing is done: clean clips come with noisy ones, as in VoiceBank-DEMAND."""

    name = "pairs"
    task = "denoise"

    noisy: tuple[Path, ...] = option((), "Folder of noisy recordings; with --clean.", metavar="DIR")

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:  # noqa: ARG002
        """The noisy clip; the noise is what the clean one lacks of it."""
        clean, noisy = clips
        samples = single(clean.samples)
        return make_case(samples[None], samples + (noisy.samples - clean.samples), clean.rate)


@dataclass(frozen=True)
class Dropout(Protocol):
    """A gap of zeros whose length is drawn from a range in s, where there is sound: the Design paper's lengths.

    The paper zeroes frames of the STFT, whose neighbours still see into the gap (:class:`Frames`); here the samples
    are gone.
    """

    name = "dropout"
    task = "inpaint"

    gap: tuple[float, float] = option(
        (0.1, 0.25), "Range of the gap's length in s, 0.1:0.25.", metavar=_RANGE, least=0.001
    )

    def check(self, seconds: float | None) -> None:
        """Raise ``SettingsError`` where the longest gap does not fit in."""
        if seconds is not None and self.gap[1] + 2 * _MARGIN_S > seconds:
            raise SettingsError(
                f"--gap {self.gap[1]:g} and {_MARGIN_S:g} s on both sides of it need a --duration of at least "
                f"{self.gap[1] + 2 * _MARGIN_S:g} s"
            )

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        """The clip with a gap in all channels."""
        (clean,) = clips
        length = round(rng.uniform(*self.gap) * clean.rate)
        start = draw_start(clean.samples, length, rng, margin=round(_MARGIN_S * clean.rate))
        return self.remove(clean, start, start + length)

    @staticmethod
    def remove(clean: Audio, start: int, stop: int, *notes: str, **known: Any) -> Case:
        """The clip without the samples ``start`` to ``stop``."""
        from dapcli.signal.missing import Missing

        gaps = Gaps((((start, stop),),) * clean.channels)
        observed = np.where(gaps.mask(0, clean.length), 0.0, clean.samples)
        return make_case(clean.samples[None], observed, clean.rate, *notes, degradation=Missing(gaps), **known)


@dataclass(frozen=True)
class Frames(Dropout):
    """Frames of the STFT, 1022 / 64 at 16 kHz, zeroed for a time that is drawn from a range in s: the Design paper's.

    The frames beside them see into that time, so that only samples that no other frame covers are lost, 60 ms less.
    The recording keeps all others as they are, which tells the same as the frames that are left. The estimate is
    measured everywhere as it was painted, as in the paper, unless what is known is put back first.
    """

    name = "frames"

    put_back: bool = option(False, "Put known samples back before measuring.")

    def check(self, seconds: float | None) -> None:
        """Raise ``SettingsError`` where the longest gap does not fit in, or the shortest loses no sample."""
        super().check(seconds)
        if self.gap[0] <= Settings.window:
            raise SettingsError(f"--gap {self.gap[0]:g} loses no sample: a window is {Settings.window:.3f} s long")

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:
        """The clip without the samples that only zeroed frames cover, in all channels."""
        from dapcli.signal.stft import STFT

        (clean,) = clips
        stft = STFT.for_rate(clean.rate, Settings.window, _PAPER_HOP_S)
        half, count = stft.n_fft // 2, round(rng.uniform(*self.gap) * clean.rate / stft.hop)
        start = draw_start(clean.samples, count * stft.hop, rng, margin=round(_MARGIN_S * clean.rate))
        first = -(-start // stft.hop)
        lost = (first - 1) * stft.hop + half, (first + count) * stft.hop - half + 1
        words = f"{count} frames zeroed, {(lost[1] - lost[0]) / clean.rate:.3f} s of samples lost"
        return self.remove(clean, *lost, words, consistent=self.put_back)


@dataclass(frozen=True)
class Mixture(Protocol):
    """The sum of clips, each at the same level: the Design paper's piano and drums."""

    name = "mixture"
    task = "separate"

    rms: float = option(0.1, "Level of each source, 0.1.", above=0)
    types: tuple[str, ...] = option(
        DEFAULT_TYPES[2], "Types of the sources that dap knows of, harmonic,percussive.", metavar="TYPE,..."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_types(self.types)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:  # noqa: ARG002
        """The mixture of one clip per source."""
        first = clips[0]
        for other in clips:
            if (other.rate, other.samples.shape) != (first.rate, first.samples.shape):
                raise InputError(
                    f"sources of {first.rate} Hz, {first.channels} channels and {other.rate} Hz, "
                    f"{other.channels} channels cannot be mixed; convert one of them"
                )
            if not other.samples.any():
                raise InputError("a source is silent; remove it")
        sources = single(np.stack([self.rms / np.sqrt(np.mean(each.samples**2)) * each.samples for each in clips]))
        return make_case(sources, sources.sum(axis=0), first.rate, types=self.types)


@dataclass(frozen=True)
class Clipped(Protocol):
    """Clipping at the level that leaves an SNR in dB. Neither paper has it."""

    name = "clipped"
    task = "declip"

    clip_snr: float = option(7.0, "SNR that clipping leaves, 7 dB.", above=0, below=100)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:  # noqa: ARG002
        """The clip, clipped on both sides."""
        from dapcli.signal.clipping import Clipping

        (clean,) = clips
        low, high = 0.0, float(np.abs(clean.samples).max())
        most = np.mean(clean.samples**2) * 10 ** (-self.clip_snr / 10)
        for _ in range(40):
            level = (low + high) / 2
            error = np.mean((clean.samples - np.clip(clean.samples, -level, level)) ** 2)
            low, high = (low, level) if error < most else (level, high)
        if not high:
            raise InputError("the clip is silent, and cannot be clipped; remove it")
        level = float(np.float32(high))  # as the samples at it are written
        clipping = Clipping((-level,) * clean.channels, (level,) * clean.channels)
        return make_case(clean.samples[None], clipping.clip(clean.samples), clean.rate, degradation=clipping)


@dataclass(frozen=True)
class Quantized(Protocol):
    """Quantization to a number of levels from -1 to 1, of the clip at a peak of 0.9: the Harmonic paper's 16."""

    name = "quantized"
    task = "dequantize"

    levels: int = option(16, "Levels from -1 to 1, 16.", least=2, below=4097)

    def degrade(self, clips: Sequence[Audio], rng: np.random.Generator) -> Case:  # noqa: ARG002
        """The clip, quantized."""
        from dapcli.signal.quantization import Quantization

        (clean,) = clips
        peak = np.abs(clean.samples).max()
        if not peak:
            raise InputError("the clip is silent, and has no levels; remove it")
        step = 2 / self.levels
        quantization = Quantization(step, 0.0 if self.levels % 2 else step / 2)
        reference = _PEAK / peak * clean.samples
        return make_case(reference[None], quantization.quantize(reference), clean.rate, degradation=quantization)


#: By name; the first of a task is its default.
PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (Gaussian, Environmental, Pairs, Dropout, Frames, Mixture, Clipped, Quantized)
}
#: The name that stands for those of the Design paper, which follow.
DESIGN = "paper"
_DESIGN = (Gaussian, Environmental, Frames, Mixture)


def make_protocol(task: str, name: str | None, values: Mapping[str, Any]) -> Protocol:
    """The protocol of this name for a task, or without a name the first that has all of these values.

    ``paper`` stands for the first of the Design paper's.

    Raises:
        SettingsError: There is no such protocol, or none that has these values, or one makes no sense.
    """
    names = [each for each, protocol in PROTOCOLS.items() if protocol.task == task]
    design = [protocol.name for protocol in _DESIGN if protocol.task == task]
    offered = [*names, DESIGN] if design else names
    if name is not None and name not in offered:
        raise SettingsError(f"unknown protocol {name!r} of {task}; choose one of {', '.join(offered)}")
    for each in names if name is None else design if name == DESIGN else [name]:
        if values.keys() <= {field.name for field in fields(PROTOCOLS[each])}:
            return PROTOCOLS[each](**values)
    options = ", ".join(f"--{value.replace('_', '-')}" for value in values)
    raise SettingsError(
        f"{options}: no protocol of {task} has that; leave it out"
        if name is None
        else f"{options}: --protocol {name} has no use for it; leave it out"
    )


def describe(protocol: Protocol) -> dict[str, Any]:
    """A protocol's name and values as JSON can hold them; files by their digests, but those that are clips."""
    values = {name: value for name, value in asdict(protocol).items() if name != "noisy" and value is not None}
    if "noise" in values:
        values["noise"] = [digest(path) for path in values["noise"]]
    return {"name": protocol.name, **values}
