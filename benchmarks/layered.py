"""How well the papers' method separates mixtures of two kinds of sound, by prior.

    python benchmarks/layered.py FIRST_FOLDER SECOND_FOLDER [--clips 8] [--seconds 1] [--prior conv --prior exp-dense]

Mixes the first recordings of both folders in pairs, in the order of their names, each with an RMS of 0.1, and prints
the SDR of both sources as fitted and as the Wiener filter shares the mixture out among them, beside that of the mixture
itself. The order of the sources is the one with the best mean SIR. Recordings are resampled to 16 kHz.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli import Audio, read_audio, separate
from dapcli.audio import resample
from dapcli.metrics import score_sources
from dapcli.settings import PAPER_RATE, SEPARATION_PRESETS

Samples = NDArray[np.float64]

_RMS = 0.1


def draw_pairs(folders: list[Path], clips: int, seconds: float) -> Iterator[tuple[str, Samples]]:
    """Names and sources ``[2, 1, N]`` of the mixtures."""
    length = round(seconds * PAPER_RATE)
    paths = [sorted(folder.glob("*.wav"))[:clips] for folder in folders]
    for pair in zip(*paths, strict=False):
        sources = np.zeros((2, 1, length))
        for source, path in zip(sources, pair, strict=True):
            audio = read_audio(path)
            samples = resample(audio.samples[:1], audio.rate, PAPER_RATE)[:, :length]
            source[:, : samples.shape[1]] = samples
            source *= _RMS / np.sqrt(np.mean(source**2))
        yield " + ".join(path.stem for path in pair), sources


def sdr_db(sources: Samples, estimates: Samples) -> list[float]:
    """SDR of both sources, NaN where one is silent."""
    scores = score_sources(sources, estimates, PAPER_RATE).sources
    values = [values["sdr_db"] for values, _ in scores]
    return [np.nan if value is None else value for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs=2, type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--preset", default="quality", choices=SEPARATION_PRESETS["paper"])
    parser.add_argument("--prior", action="append")
    parser.add_argument("--width", type=int)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in ("width", "iterations") if getattr(arguments, name)}
    settings = replace(SEPARATION_PRESETS["paper"][arguments.preset], seed=arguments.seed, **given)
    found: dict[str, list[list[float]]] = {}
    seconds: dict[str, float] = {}
    for name, sources in draw_pairs(arguments.folders, arguments.clips, arguments.seconds):
        mixture = Audio(sources.sum(axis=0), PAPER_RATE)
        estimates = {"mixture": np.stack([mixture.samples] * 2)}
        for prior in arguments.prior or [settings.prior]:
            started = time.perf_counter()
            separation = separate(mixture, settings=replace(settings, prior=prior))
            seconds[prior] = seconds.get(prior, 0.0) + time.perf_counter() - started
            estimates[prior] = np.stack([source.samples for source in separation.audio])
            for note in separation.result.notes:
                print(f"{name}, {prior}: {note}")
        for method, estimate in estimates.items():
            found.setdefault(method, []).append(sdr_db(sources, estimate))
        lines = (f"{method} {one[-1][0]:.2f} / {one[-1][1]:.2f}" for method, one in found.items())
        print(f"{name}:", *lines, sep="  ", flush=True)
    count = len(found["mixture"])
    print(f"\n| method ({count} mixtures) | SDR of the first (dB) | of the second (dB) | s |\n|---|---|---|---|")
    for method, values in found.items():
        first, second = np.mean(values, axis=0)
        print(f"| {method} | {first:.2f} | {second:.2f} | {seconds.get(method, 0.0) / count:.1f} |")


if __name__ == "__main__":
    main()
