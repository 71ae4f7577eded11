"""Everything that decides a restoration besides the recording itself; a preset is a named set of these.

This module imports nothing heavy, so that the command line can show its help at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dapcli.errors import SettingsError

PAPER_RATE = 16_000
MIN_RATE = 8_000
MAX_RATE = 192_000


@dataclass(frozen=True)
class Settings:
    """The settings of one restoration. The defaults are those of the ``quality`` preset.

    Lengths are in seconds, so that they scale with the sample rate.

    Raises:
        SettingsError: A number is out of range.
    """

    prior: str = "exp-dense"
    """Name of the network, see ``dap priors``."""
    estimator: str = "mask"
    """``mask``: the network masks the recording; ``mix``: it mixes classical restorations of it; ``share``: it shares
    it out among sources; ``generate``: it generates the spectrogram out of noise; ``paper``: several networks generate
    the sources of a mixture and the masks between them."""
    stop: str = "auto"
    """Name of the stopping rule."""
    post_filter: str = "none"
    """Name of the filter that follows the fit."""
    iterations: int = 40
    """Iterations in which the network learns from the recording, on every second frame; or those of each segment's fit
    at the most, where ``refinement`` is 0."""
    refinement: int = 16
    """Iterations for each segment on all frames, starting from what the network has learned; 0 fits every segment anew,
    as ``generate`` and rules that stop early always do."""
    optimizer: str = "muon"
    """Name of the optimizer; the papers have Adam."""
    learning_rate: float = 0.05
    """Step size of the optimizer; it is halved and falls to 0 in the refinement."""
    width: int = 16
    """Filters of the network's first convolution; the papers have 35."""
    fold: int = 2
    """Bins, and frames, that are folded into one for the network: with 2 it does a quarter of the work; the papers have
    1."""
    dilation: int = 4
    """Dilation of the ``dilated`` prior."""
    perturbation: float = 0.7
    """Noise added to the network's input in every iteration: times the recording's noise (mask), or times the
    network's input (generate)."""
    averaging: float = 0.95
    """Weight of the past in the running average of estimates."""
    window: float = 1022 / PAPER_RATE
    """Length of the STFT's window, s."""
    hop: float = 128 / PAPER_RATE
    """Distance of the STFT's frames, s."""
    segment: float = 4.0
    """Longest stretch that is fitted at once, s; memory grows with it."""
    rate: int | None = None
    """Sample rate to work at, Hz; the input's own where it is None. The output has the input's rate in any case."""
    noise_model: str = "auto"
    """How the noise may move: ``auto``, ``steady`` or ``moving``."""
    attenuation_limit: float | None = None
    """Most that noise is lowered by (mask), dB; where it is None, what keeps the sound whole."""
    precision: str = "auto"
    """Type that convolutions compute in: ``auto``, ``float32`` or ``bfloat16``."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "perturbation", "averaging", "window", "hop", "segment"):
            if not math.isfinite(getattr(self, name)):
                raise SettingsError(f"--{name.replace('_', '-')} must be a finite number")
        positive = ("iterations", "learning_rate", "width", "dilation", "fold", "window", "hop")
        for name in positive:
            if not getattr(self, name) > 0:
                raise SettingsError(f"--{name.replace('_', '-')} must be above 0")
        if self.perturbation < 0 or (self.estimator == "mask" and self.perturbation == 0):
            raise SettingsError("--perturbation must not be negative, and above 0 with --estimator mask")
        if self.refinement < 0:
            raise SettingsError("--refinement must not be negative")
        if not 0 <= self.averaging < 1:
            raise SettingsError("--averaging must be at least 0 and below 1")
        if self.attenuation_limit is not None and not 0 <= self.attenuation_limit < math.inf:
            raise SettingsError("--attenuation-limit must be a finite number of dB, and not negative")
        if self.hop > self.window / 2:
            raise SettingsError("--hop must be at most half of --window, or samples between frames are lost")
        if self.segment < 4 * self.window or self.segment < MIN_SEGMENT:
            raise SettingsError(f"--segment must be at least {MIN_SEGMENT:g} s and four windows")
        if self.rate is not None and not MIN_RATE <= self.rate <= MAX_RATE:
            raise SettingsError(f"--rate must be from {MIN_RATE} to {MAX_RATE} Hz")
        if not 0 <= self.seed < 2**63:
            raise SettingsError("--seed must be from 0 to 2^63 - 1")


SEGMENT_OVERLAP = 0.5
"""Cross-fade between neighbouring segments, s."""
MIN_SEGMENT = 3 * SEGMENT_OVERLAP
"""Shortest setting of ``segment``, s: neighbours' cross-fades must not meet."""

# What the papers' networks are fitted with, and what suits all but masks.
_PLAIN: dict[str, Any] = {"optimizer": "adam", "learning_rate": 2e-3, "fold": 1, "refinement": 0}

PRESETS: dict[str, Settings] = {
    "quality": Settings(),
    "fast": Settings(width=8, iterations=30, refinement=10),
    # The papers' estimator with what it takes to work without a reference: a blind stop, a perturbed input, an average
    # of estimates, a post-filter.
    "generate": Settings(
        **_PLAIN, estimator="generate", post_filter="wiener", iterations=400, width=32, perturbation=0.1
    ),
    # The Design paper to the letter, and as its released code does where the paper is silent.
    "paper": Settings(
        **{**_PLAIN, "learning_rate": 1e-3},
        estimator="generate",
        stop="fixed",
        iterations=2000,
        width=35,
        perturbation=0.0,
        averaging=0.0,
        hop=64 / PAPER_RATE,
        rate=PAPER_RATE,
        precision="float32",
    ),
}

# Of repairs: what they learn from is little, and the classical fills have done most of the work.
_MIX = Settings(
    **_PLAIN, estimator="mix", iterations=40, width=8, perturbation=0.0, averaging=0.9, hop=256 / PAPER_RATE
)
REPAIR_PRESETS: dict[str, Settings] = {
    "quality": _MIX,
    "fast": replace(_MIX, iterations=10),
    "generate": replace(PRESETS["generate"], post_filter="none", iterations=200, width=16),
    "paper": replace(PRESETS["paper"], rate=None),
}

# Of separations, by method, which is the estimator: the settings of one would be of no use to the other.
SEPARATION_PRESETS: dict[str, dict[str, Settings]] = {
    "share": {
        # The window has to resolve tones.
        "quality": Settings(
            **_PLAIN,
            estimator="share",
            iterations=24,
            width=8,
            perturbation=0.1,
            averaging=0.8,
            window=2048 / PAPER_RATE,
            hop=256 / PAPER_RATE,
        ),
    },
    "paper": {
        # The Design paper's method at a bearable cost.
        "quality": Settings(
            **_PLAIN,
            estimator="paper",
            iterations=300,
            width=16,
            perturbation=0.0,
            averaging=0.9,
            hop=256 / PAPER_RATE,
        ),
        # To the letter, where it says so.
        "paper": replace(PRESETS["paper"], estimator="paper"),
    },
}
# Fewer iterations are not enough for so small a network.
SEPARATION_PRESETS["share"]["fast"] = replace(SEPARATION_PRESETS["share"]["quality"], width=4, learning_rate=4e-3)
SEPARATION_PRESETS["paper"]["fast"] = replace(SEPARATION_PRESETS["paper"]["quality"], iterations=150, width=8)
