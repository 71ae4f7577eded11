"""Draw how far every prior sees, and where.

    python examples/receptive_fields.py docs/receptive_fields.png

The gradient of one bin of an untrained network's output by its input of white noise, as a root mean square over draws
of the weights (the effective receptive field: Luo et al., NeurIPS 2016). The bin is at 1 kHz in the middle of 3 s at 16
kHz; settings are those of `dap denoise`. A prior of waveforms has one sample in place of the bin, and no frequency.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dapcli import TASKS
from dapcli.priors import PRIORS, build_prior
from dapcli.settings import PAPER_RATE
from dapcli.signal.stft import STFT

SETTINGS = TASKS["denoise"].presets["quality"]
SECONDS, PITCH_HZ, DRAWS = 3.0, 1000.0, 16
COLUMNS, RANGE_DB, SHOWN_S = 4, 60.0, 0.5


def measure(name: str) -> NDArray[np.float64]:
    """The squared gradient ``[F, T]`` in dB, 0 at the most."""
    stft = STFT.for_rate(PAPER_RATE, SETTINGS.window, SETTINGS.hop)
    samples = round(SECONDS * PAPER_RATE)
    bins, frames = (1, samples) if PRIORS[name].waveform else (stft.n_fft // 2 + 1, 1 + samples // stft.hop)
    position = 0 if bins == 1 else round(PITCH_HZ * stft.n_fft / PAPER_RATE)
    squares = torch.zeros(bins, frames)
    for seed in range(DRAWS):
        torch.manual_seed(seed)
        network = build_prior(replace(SETTINGS, prior=name), 1, 1)
        z = torch.randn(1, 1, bins, frames, requires_grad=True)
        network(z)[0, 0, position, frames // 2].backward()
        assert z.grad is not None
        squares += z.grad[0, 0].square()
    return np.asarray(10 * (squares / squares.max()).clamp(min=1e-12).log10().numpy(), dtype=np.float64)


def draw() -> Figure:
    """A panel for every prior."""
    rows = -(-len(PRIORS) // COLUMNS)
    figure = Figure(figsize=(2.5 * COLUMNS, 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    half = SECONDS / 2
    for panel, name in zip(panels.flat, PRIORS, strict=False):
        levels = measure(name)
        panel.set_visible(True)
        panel.set_title(name, fontsize=10)
        panel.set_xlim(-SHOWN_S, SHOWN_S)
        if PRIORS[name].waveform:
            panel.plot(np.linspace(-half, half, levels.size), levels[0], linewidth=0.6)
            panel.set_ylim(-RANGE_DB, 0)
            panel.set_ylabel("dB")
            continue
        extent = (-half, half, 0.0, PAPER_RATE / 2000)
        picture = panel.imshow(
            levels, "magma", None, aspect="auto", vmin=-RANGE_DB, vmax=0, origin="lower", extent=extent
        )
    figure.colorbar(picture, ax=panels, label="dB", fraction=0.03)
    figure.supxlabel("time from the bin (s)", fontsize=10)
    figure.supylabel("frequency (kHz)", fontsize=10)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(sys.argv[1]), dpi=80)
