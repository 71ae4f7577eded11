"""The noise of one segment over frequency and time: where a fit starts, and how much of it stays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dapcli.signal.noise_spectrum import Spectrum, estimate_spectrum, inner_frames, is_white, power_spectrogram, snr_db
from dapcli.signal.noise_tracking import Power, floor_movement_db, tonality, track
from dapcli.signal.stft import STFT

#: How noise may move, for ``--noise-model``. The room that it has around its steady spectrum is, in dB, by model;
#: None leaves it to :func:`_room_db`.
NOISE_MODELS: dict[str, float | None] = {"auto": None, "steady": 0.0, "moving": 20.0}

#: Factor on a noise profile's power in a fit: noise is seldom steady, and too low a spectrum costs more than one that
#: is 1 dB too high.
PROFILE_MARGIN = 1.25

# A floor that moves by no more than this, dB, is steady; beyond, the noise gets so many dB of room for each, to a most.
_STEADY_DB, _ROOM_PER_DB, _MOST_ROOM_DB = 0.9, 20.0, 20.0
# Where the sound is far above the noise, the floor's movement is the sound's; where it is made of lines, the tracker
# takes it for noise. The room shrinks to nothing over these ranges, of SNR in dB and of tonality.
_SNR_RANGE_DB = (12.0, 22.0)
_SOUND_HZ = 200.0
_TONALITY_RANGE = (0.6, 0.8)
# Rumble below this, Hz, is often far stronger than what low quantiles see. Lines may be notes from the lower one on.
_RUMBLE_HZ, _TONAL_RUMBLE_HZ = 80.0, 60.0
# Sound that is on average this far above what low quantiles see, dB, comes and goes as drums do.
_DRUM_DB = 12.0
# Rumble starts from its mean, at the most so many times the steady spectrum, and is refined within these times it.
_RUMBLE_START, _RUMBLE_RANGE = 10.0, (0.25, 40.0)
# Its refinement: the smoothing over time, s, and the weight of the new estimate.
_RUMBLE_SMOOTHING_S, _RUMBLE_RATE = 0.064, 0.4

# Noise that is left, relative to the sound, dB, and the least attenuation. Deeper gaps between the sounds cost more
# speech quality (CSIG, PESQ) than the residue does. Noise that is white or known is told from sound better, and may go
# further.
_RESIDUE_DB, _KNOWN_RESIDUE_DB, _LEAST_ATTENUATION_DB = -27.0, -45.0, 15.0
# A recording whose sound is this far above the noise, dB, is changed by no more than _CHANGE_DB below its own level;
# lower down the limit falls. Noise is overrated among notes that last, where the limit begins earlier.
_CLEAN_DB, _CLEAN_TONAL_DB, _RAMP_DB = 23.0, 13.0, 3.0
_CLEAN_TONALITY_RANGE = (0.65, 0.8)
_CHANGE_DB, _NO_CHANGE_LIMIT_DB = -31.5, -6.0
# Fraction of the recording's power.
_STRONG_RUMBLE = 10 ** (-12 / 10)
_TINY = 1e-12


@dataclass(frozen=True)
class Noise:
    """The noise of a recording of C channels.

    ``spectrum`` ``[C, F]`` is what is steady of it, ``power`` ``[C, F, T]`` its expected power in every bin and frame.
    ``rumble`` is the number of low bins in which the fit refines the power, ``white`` whether the spectrum is flat, and
    ``tonality`` how much of the recording lasts as lines do, 0 to 1. ``known`` says that the spectrum was measured
    where there is nothing but noise. Frames are ``hop_s`` seconds apart.
    """

    spectrum: Tensor
    power: Tensor
    hop_s: float
    rumble: int = 0
    white: bool = False
    tonality: float = 0.0
    known: bool = False

    @classmethod
    def steady(cls, spectrum: Tensor, frames: int, hop_s: float) -> Noise:
        """Noise with a spectrum ``[C, F]`` that is the same in all of so many frames."""
        return cls(spectrum, spectrum[..., None].expand(*spectrum.shape, frames), hop_s)

    def every(self, step: int) -> Noise:
        """The noise on every ``step``-th frame."""
        return replace(self, power=self.power[..., ::step], hop_s=step * self.hop_s)

    def to(self, device: torch.device) -> Noise:
        """The noise on a device."""
        return replace(self, spectrum=self.spectrum.to(device), power=self.power.to(device))

    def refine(self, power: Tensor, observed: Tensor, gain: Tensor) -> Tensor:
        """Noise power, refined by what a gain leaves of the recording's power; all are ``[C, F, T]``.

        Where the gain is that of a Wiener filter, the noise's expected power in a bin is (1 - g)^2 |y|^2 + g N: the
        E-step of expectation maximisation. Above the rumble it takes weak sound for noise, and is not used.
        """
        if not self.rumble:
            return power
        low, gain = power[:, : self.rumble], gain[:, : self.rumble]
        expected = (1 - gain).square() * observed[:, : self.rumble] + gain * low
        smooth = _smooth(expected, _RUMBLE_SMOOTHING_S / self.hop_s).clamp(min=_TINY)
        refined = torch.lerp(low.log(), smooth.log(), _RUMBLE_RATE).exp()
        least, most = (factor * self.spectrum[:, : self.rumble, None] for factor in _RUMBLE_RANGE)
        return torch.cat([refined.clamp(least, most), power[:, self.rumble :]], dim=1)


def estimate_noise(stft: STFT, samples: Tensor, rate: int, model: str, profile: Spectrum | None = None) -> Noise:
    """The noise of samples ``[C, N]`` at ``rate`` Hz, by a model of :data:`NOISE_MODELS`.

    Its steady spectrum is estimated from them, or that of a ``profile`` ``[C, F]``.
    """
    hop_s, bin_hz = stft.hop / rate, rate / stft.n_fft
    power = power_spectrogram(stft, samples)
    inner = inner_frames(power, stft)
    spectrum = estimate_spectrum(inner, bin_hz) if profile is None else PROFILE_MARGIN * profile
    lines = float(np.mean([tonality(channel, hop_s, bin_hz) for channel in inner]))
    noise = replace(
        Noise.steady(torch.from_numpy(spectrum).float(), power.shape[-1], hop_s),
        white=is_white(spectrum),
        tonality=lines,
        known=profile is not None,
    )
    room = NOISE_MODELS[model]
    # A profile's spectrum is better than what trackers add to it.
    if room == 0 or (room is None and (noise.white or noise.known)):
        return noise
    rumble = math.ceil((_RUMBLE_HZ if lines < _TONALITY_RANGE[1] else _TONAL_RUMBLE_HZ) / bin_hz)
    if snr_db(inner[:, :rumble], spectrum[:, :rumble, None]) > _DRUM_DB:
        rumble = 0
    moving = []
    for channel, inside, steady in zip(power, inner, spectrum[..., None], strict=True):
        factor = 10 ** ((_room_db(inside, steady, lines, hop_s, bin_hz) if room is None else room) / 10)
        tracked = np.clip(track(channel, hop_s), steady / factor, steady * factor)
        mean = np.minimum(inside[:rumble].mean(axis=1, keepdims=True), _RUMBLE_START * steady[:rumble])
        tracked[:rumble] = np.maximum(tracked[:rumble], mean)
        moving.append(tracked)
    return replace(noise, power=torch.from_numpy(np.stack(moving)).float(), rumble=rumble)


def _room_db(power: Power, steady: Power, lines: float, hop_s: float, bin_hz: float) -> float:
    """Room, dB, of the noise in a power ``[F, T]`` around its steady spectrum ``[F, 1]``, by how its floor moves."""
    moved = floor_movement_db(power / steady, hop_s, bin_hz)
    room = min(max(_ROOM_PER_DB * (moved - _STEADY_DB), 0.0), _MOST_ROOM_DB)
    low = round(_SOUND_HZ / bin_hz)
    return room * _falling(snr_db(power[low:], steady[low:]), _SNR_RANGE_DB) * _falling(lines, _TONALITY_RANGE)


def protect(gain: Tensor, power: Tensor, noise: Noise, bin_hz: float) -> tuple[Tensor, bool]:
    """A gain for a recording's power, both ``[C, F, T]``, raised so that sound stays whole.

    It leaves the noise no further than a set distance below the sound, for all channels alike. Where a blind estimate
    finds little noise, that may as well be a part of the recording: little is changed then, and the second value is
    true.
    """
    low = round(_SOUND_HZ / bin_hz)
    sound, left = (gain.square() * power)[:, low:].sum(), noise.power[:, low:].sum()
    heard_db = 10 * float((sound / left.clamp(min=_TINY)).clamp(min=_TINY).log10())
    residue_db = heard_db + (_KNOWN_RESIDUE_DB if noise.white or noise.known else _RESIDUE_DB)
    gain = gain.clamp(min=10 ** (min(residue_db, -_LEAST_ATTENUATION_DB) / 20))
    if noise.white or noise.known:
        return gain, False
    clean_db = float(np.interp(noise.tonality, _CLEAN_TONALITY_RANGE, (_CLEAN_DB, _CLEAN_TONAL_DB)))
    # Strong rumble may go from a recording that is clean above it, unless it may be notes.
    rumbles = bool(power[:, : noise.rumble].sum() > _STRONG_RUMBLE * power.sum())
    edge = noise.rumble if rumbles and noise.tonality < _CLEAN_TONALITY_RANGE[1] else 0
    zones = [(slice(edge, None), slice(low, None), clean_db)]
    if edge:
        zones.insert(0, (slice(edge), slice(edge), _CLEAN_DB))
    limited, parts = False, []
    for zone, sounding, threshold_db in zones:
        heard, steady = (each[:, sounding].cpu().double().numpy() for each in (power, noise.spectrum[..., None]))
        ramp_db = (threshold_db - _RAMP_DB, threshold_db)
        most_db = np.interp(snr_db(heard, steady), ramp_db, (_NO_CHANGE_LIMIT_DB, _CHANGE_DB))
        removed = ((1 - gain[:, zone]).square() * power[:, zone]).sum() / power.sum().clamp(min=_TINY)
        scale = min(1.0, 10 ** ((most_db - 10 * float(removed.clamp(min=_TINY).log10())) / 20))
        limited |= scale < 1
        parts.append(1 - scale * (1 - gain[:, zone]))
    return torch.cat(parts, dim=1), limited


def _falling(value: float, over: tuple[float, float]) -> float:
    """1 below a range, 0 above it, and a straight line between."""
    return float(np.interp(value, over, (1.0, 0.0)))


def _smooth(power: Tensor, sigma: float) -> Tensor:
    """A power ``[C, F, T]`` smoothed over time by a Gaussian of so many frames; the ends are repeated."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=power.device) / sigma).square())
    rows = F.pad(power.flatten(0, 1)[:, None], (reach, reach), mode="replicate")
    return F.conv1d(rows, (kernel / kernel.sum())[None, None]).reshape(power.shape)
