"""The noise in a recording: how strong it is in every bin and frame, and how much of it may go.

``steady`` estimates a spectrum that is the same at all times, or takes it from a stretch of noise; ``moving`` lets it
follow time; ``estimate`` puts both together, by ``--noise-model``; ``protection`` limits what is taken away.
"""

from dapcli.noise.estimate import NOISE_MODELS, PROFILE_MARGIN, Noise, estimate_noise
from dapcli.noise.protection import protect
from dapcli.noise.steady import Spectrum, is_white, noise_std, profile_spectrum

__all__ = [
    "NOISE_MODELS",
    "PROFILE_MARGIN",
    "Noise",
    "Spectrum",
    "estimate_noise",
    "is_white",
    "noise_std",
    "profile_spectrum",
    "protect",
]
