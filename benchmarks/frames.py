"""The Design paper's inpainting: frames of the STFT are zeroed, and each prior paints them.

    python benchmarks/frames.py FOLDER... [--clips 3] [--iterations 100]

Zeroes the frames of a stretch of 0.1 to 0.25 s of each clip, and fits every prior to the others as the papers do: the
network generates the spectrogram out of noise. Windows beside the zeroed frames still see into the gap, so that some
36 ms of 100 are unknown; ``dap inpaint`` has no such frames, and is measured in ``benchmarks/repair.py``. Prints the
spectral SNR and the envelope distance of the whole clip, with the known frames as they were, at the last iteration and
at the best one against the clean clip (oracle, as in the paper).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import read_audio
from dapcli.fit import STOPPING_RULES, Fit, StopContext
from dapcli.metrics.waveform import envelope_distance, spectral_snr_db
from dapcli.objectives.generate import Generation
from dapcli.priors import build_prior
from dapcli.settings import REPAIR_PRESETS
from dapcli.signal.stft import STFT

PRIORS = ("conv", "dilated", "exp", "exp-dense")
GAP_S = (0.1, 0.25)


class KnownFrames(Generation):
    """The papers' observation with a mask on frames: ``known`` ``[T]``."""

    def __init__(self, samples: Tensor, stft: STFT, known: Tensor, generator: torch.Generator) -> None:
        super().__init__(samples, stft, None, perturbation=REPAIR_PRESETS["generate"].perturbation, generator=generator)
        self._known = known

    def _data_fidelity(self, estimate: Tensor) -> Tensor:
        return (estimate - self.spectrogram)[..., self._known].square().mean()


def inpaint(clean: NDArray[np.float64], rate: int, prior: str, iterations: int, seed: int) -> list[tuple[float, float]]:
    """Spectral SNR in dB and envelope distance: of the zeroed clip, blind, and by the oracle."""
    settings = REPAIR_PRESETS["generate"]
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    samples = torch.from_numpy(clean).float()[None]
    rng = np.random.default_rng(seed)
    frames = stft.forward(samples).shape[-1]
    length = round(rng.uniform(*GAP_S) * rate / stft.hop)
    start = int(rng.integers(frames // 8, frames - frames // 8 - length))
    known = torch.ones(frames, dtype=torch.bool)
    known[start : start + length] = False
    generator = torch.Generator().manual_seed(seed)
    observation = KnownFrames(samples, stft, known, generator)
    torch.manual_seed(seed)
    network = build_prior(prior, 2, 2, width=settings.width)
    fit = Fit(
        network,
        observation,
        STOPPING_RULES["fixed"](StopContext(stft, samples)),
        iterations=iterations,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        averaging=settings.averaging,
        dtype=torch.float32,
        generator=generator,
    )

    def judge(estimate: Tensor) -> tuple[float, float]:
        restored = torch.where(known, observation.spectrogram, estimate)
        samples = stft.inverse(restored, clean.size).double().numpy()
        return spectral_snr_db(clean[None], samples, rate), envelope_distance(clean[None], samples, rate)

    zeroed = judge(torch.zeros_like(observation.spectrogram))
    scores = [judge(fit.estimate) for _ in fit]
    return [zeroed, scores[-1], max(scores)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of clean WAV files, one kind of sound each")
    parser.add_argument("--clips", type=int, default=3, help="first clips of each folder")
    parser.add_argument("--seconds", type=float, default=1.0, help="that much from the middle of each clip")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| kind | prior | zeroed | blind | oracle | envelope distance, blind |\n|---|---|---|---|---|---|")
    for folder in arguments.folders:
        scores: dict[str, list[list[tuple[float, float]]]] = defaultdict(list)
        for path in sorted(folder.glob("*.wav"))[: arguments.clips]:
            audio = read_audio(path)
            size = min(audio.length, round(arguments.seconds * audio.rate))
            clean = audio.samples[0, (audio.length - size) // 2 :][:size]
            for prior in PRIORS:
                scores[prior].append(inpaint(clean, audio.rate, prior, arguments.iterations, arguments.seed))
                print(path.stem, prior, scores[prior][-1], file=sys.stderr, flush=True)
        for prior, rows in scores.items():
            (zeroed, _), (blind, distance), (oracle, _) = np.mean(rows, axis=0)
            print(
                f"| {folder.name} | {prior} | {zeroed:.2f} | {blind:.2f} | {oracle:.2f} | {distance:.3f} |", flush=True
            )


if __name__ == "__main__":
    main()
