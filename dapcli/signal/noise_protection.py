"""What is left of the noise, so that what is heard of the sound stays whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dapcli.signal.noise import Noise
from dapcli.signal.noise_spectrum import snr_db

# What is left of the noise, relative to the sound, dB, and the least attenuation. Deeper gaps between the sounds cost
# more speech quality (CSIG, PESQ) than the residue does. Noise that is white or known is told from sound better, and
# may go further.
_RESIDUE_DB, _KNOWN_RESIDUE_DB, _LEAST_ATTENUATION_DB = -27.0, -45.0, 15.0
# A recording whose sound is this far above the noise, dB, is changed by no more than _CHANGE_DB below its own level;
# lower down the limit falls. Noise is overrated among notes that last, where the limit begins earlier.
_CLEAN_DB, _CLEAN_TONAL_DB, _RAMP_DB = 23.0, 13.0, 3.0
_TONALITY_RANGE = (0.65, 0.8)
_CHANGE_DB, _NO_CHANGE_LIMIT_DB = -31.5, -6.0
# Share of the recording's power.
_STRONG_RUMBLE = 10 ** (-12 / 10)
_SOUND_HZ = 200.0
_TINY = 1e-12


def protect(gain: Tensor, power: Tensor, noise: Noise, bin_hz: float) -> tuple[Tensor, bool]:
    """A gain for a recording's power, both ``[C, F, T]``, that leaves some noise where it should.

    It is at least what leaves the noise a set distance below the sound, for all channels alike. Where a blind estimate
    finds little noise, what it takes away may as well be the recording's own: little is changed then, and the second
    value is true.
    """
    low = round(_SOUND_HZ / bin_hz)
    sound, left = (gain.square() * power)[:, low:].sum(), noise.power[:, low:].sum()
    heard_db = 10 * float((sound / left.clamp(min=_TINY)).clamp(min=_TINY).log10())
    residue_db = heard_db + (_KNOWN_RESIDUE_DB if noise.white or noise.known else _RESIDUE_DB)
    gain = gain.clamp(min=10 ** (min(residue_db, -_LEAST_ATTENUATION_DB) / 20))
    if noise.white or noise.known:
        return gain, False
    clean_db = float(np.interp(noise.tonality, _TONALITY_RANGE, (_CLEAN_DB, _CLEAN_TONAL_DB)))
    # Strong rumble may go from a recording that is clean above it, unless it may be notes.
    rumbles = bool(power[:, : noise.rumble].sum() > _STRONG_RUMBLE * power.sum())
    edge = noise.rumble if rumbles and noise.tonality < _TONALITY_RANGE[1] else 0
    zones = [(slice(edge, None), slice(low, None), clean_db)]
    if edge:
        zones.insert(0, (slice(edge), slice(edge), _CLEAN_DB))
    limited, parts = False, []
    for zone, sounding, threshold_db in zones:
        heard, steady = (each[:, sounding].cpu().double().numpy() for each in (power, noise.spectrum[..., None]))
        ramp_db = (threshold_db - _RAMP_DB, threshold_db)
        most_db = np.interp(snr_db(heard, steady), ramp_db, (_NO_CHANGE_LIMIT_DB, _CHANGE_DB))
        removed = ((1 - gain[:, zone]).square() * power[:, zone]).sum() / power.sum().clamp(min=_TINY)
        share = min(1.0, 10 ** ((most_db - 10 * float(removed.clamp(min=_TINY).log10())) / 20))
        limited |= share < 1
        parts.append(1 - share * (1 - gain[:, zone]))
    return torch.cat(parts, dim=1), limited
