"""Compare dap's repairs with what needs no training set either, on the same damaged recordings.

    python benchmarks/repair.py inpaint|declip|dequantize FOLDER_OR_WAV... [--gaps 20,40,60] [--preset quality]

Opens one gap of each length (ms) per clip, clips at an SNR of --clip-snr dB, or quantizes to --levels levels after
setting the peak to 0.9; restores with dap (blind, and by the oracle rule) and with the peers, and prints means as a
Markdown table: SNR where samples were damaged (the mean over gaps and clips), log-spectral distance there, seconds.
``shares`` is dap without its network: the classical candidates in the shares that are best for all bins alike. All
randomness comes from --seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import Audio, read_audio
from dapcli.baselines import BASELINES, Observed
from dapcli.objectives.ensemble import best_shares
from dapcli.settings import REPAIR_PRESETS
from dapcli.signal.clipping import Clipping
from dapcli.signal.degradation import Degradation
from dapcli.signal.gaps import Gaps, Interval
from dapcli.signal.missing import Missing
from dapcli.signal.quantization import Quantization
from dapcli.signal.stft import STFT
from dapcli.tasks._api_restore import repair

Array = NDArray[np.float64]

# What is known beside a gap, and how far two gaps of a clip are apart, s.
MARGIN_S = 0.15
# Log-spectral distance: frames of 16 ms every 4 ms, and a floor below full scale.
LSD_WINDOW_S, LSD_HOP_S, LSD_FLOOR = 0.016, 0.004, 1e-9


class Case(NamedTuple):
    """A clean recording [N], the same damaged, how, and the stretches in which errors count."""

    name: str
    rate: int
    clean: Array
    damaged: Array
    degradation: Degradation
    stretches: list[Interval]
    counted: NDArray[np.bool_]


def lose(clean: Array, rate: int, arguments: argparse.Namespace, rng: np.random.Generator) -> Case:
    """Open gaps, in any order, where there is sound."""
    margin = round(MARGIN_S * rate)
    taken = np.zeros(clean.size, dtype=np.bool_)
    taken[:margin] = taken[-margin:] = True
    gaps = []
    for length in rng.permutation([round(rate * float(ms) / 1000) for ms in arguments.gaps.split(",")]):
        power = np.convolve(clean**2, np.ones(length), "valid")
        free = np.convolve(taken, np.ones(length), "valid") == 0
        starts = np.flatnonzero(free & (power > 0.1 * length * np.mean(clean**2)))
        if starts.size:
            start = int(rng.choice(starts))
            gaps.append((start, start + int(length)))
            taken[max(0, start - margin) : start + length + margin] = True
    degradation = Missing(Gaps((tuple(sorted(gaps)),)))
    missing = degradation.gaps.mask(0, clean.size)[0]
    return Case("", rate, clean, np.where(missing, 0.0, clean), degradation, sorted(gaps), missing)


def clip(clean: Array, rate: int, arguments: argparse.Namespace, rng: np.random.Generator) -> Case:
    """Clip at the level at which the SNR is as asked for."""
    del rng
    low, high = 0.0, float(np.abs(clean).max())
    for _ in range(40):
        level = (low + high) / 2
        low, high = (low, level) if snr(clean, np.clip(clean, -level, level)) > arguments.clip_snr else (level, high)
    damaged = np.clip(clean, -high, high)
    degradation = Clipping((-high,), (high,))
    return Case("", rate, clean, damaged, degradation, [(0, clean.size)], degradation.clipped(damaged[None])[0])


def quantize(clean: Array, rate: int, arguments: argparse.Namespace, rng: np.random.Generator) -> Case:
    """Quantize on [-1, 1]: the Harmonic paper's protocol."""
    del rng
    clean = 0.9 * clean / np.abs(clean).max()
    step = 2 / arguments.levels
    degradation = Quantization(step, step / 2)
    everywhere = np.ones(clean.size, dtype=np.bool_)
    return Case("", rate, clean, degradation.quantize(clean[None])[0], degradation, [(0, clean.size)], everywhere)


TASKS: dict[str, Callable[[Array, int, argparse.Namespace, np.random.Generator], Case]] = {
    "inpaint": lose,
    "declip": clip,
    "dequantize": quantize,
}


def restore_all(case: Case, arguments: argparse.Namespace) -> Iterator[tuple[str, Array]]:
    observed = Observed(case.damaged[None], case.rate, case.degradation)
    for name, baseline in BASELINES[arguments.task].items():
        yield name, baseline(observed)[0, 0]
    candidates = case.degradation.candidates(case.damaged[None], case.rate)
    shares = best_shares(case.degradation.training_pairs(case.damaged[None], candidates, case.rate, arguments.seed))
    mixed = np.einsum("k,kcn->cn", shares, candidates)
    finished = case.degradation.finish(mixed, case.damaged[None], case.rate, arguments.seed)
    yield "shares", case.degradation.project(finished, case.damaged[None])[0]
    for preset in arguments.preset:
        for prior in arguments.prior:
            for rule in ("auto", "oracle") if arguments.oracle else ("auto",):
                settings = replace(REPAIR_PRESETS[preset], prior=prior, seed=arguments.seed, stop=rule)
                result = repair(
                    Audio(case.damaged[None], case.rate),
                    case.degradation,
                    settings,
                    reference=Audio(case.clean[None], case.rate),
                )
                yield f"dap {preset} {prior}, {'blind' if rule == 'auto' else 'oracle'}", result.audio.samples[0]


def snr(clean: Array, estimate: Array) -> float:
    return 10 * float(np.log10(np.sum(clean**2) / max(np.sum((clean - estimate) ** 2), 1e-20)))


def log_spectral_distance(clean: Array, estimate: Array, rate: int, stretch: Interval) -> float:
    """Root mean square difference of log spectra in dB over the frames that touch a stretch."""
    stft = STFT.for_rate(rate, LSD_WINDOW_S, LSD_HOP_S)
    around = slice(max(0, stretch[0] - stft.hop), stretch[1] + stft.hop)
    power = stft.forward(torch.from_numpy(np.stack([clean[around], estimate[around]]))).square().sum(dim=1)
    levels = 10 * (power + LSD_FLOOR).log10()
    return float((levels[0] - levels[1]).square().mean(dim=0).sqrt().mean())


def draw_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    paths: list[Path] = []
    for path in arguments.clean:
        paths += sorted(path.glob("*.wav"))[: arguments.clips] if path.is_dir() else [path]
    for path in paths:
        audio = read_audio(path)
        clean = audio.samples[0]
        size = min(clean.size, round(arguments.seconds * audio.rate))
        clean = clean[(clean.size - size) // 2 :][:size]
        rng = np.random.default_rng([arguments.seed, *path.stem.encode()])
        yield TASKS[arguments.task](clean, audio.rate, arguments, rng)._replace(name=path.stem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("clean", type=Path, nargs="+", help="clean WAV files or folders of them")
    parser.add_argument("--gaps", default="20,40,60", help="lengths of the gaps in ms")
    parser.add_argument("--clip-snr", type=float, default=7.0, help="SNR that clipping leaves, dB")
    parser.add_argument("--levels", type=int, default=16, help="levels of the quantizer")
    parser.add_argument("--preset", action="append", help="presets of dap to run")
    parser.add_argument("--prior", action="append", help="priors to run")
    parser.add_argument("--clips", type=int, help="first clips of each folder only")
    parser.add_argument("--seconds", type=float, default=2.0, help="that much from the middle of each clip")
    parser.add_argument("--no-oracle", dest="oracle", action="store_false", help="leave out the oracle rule")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.preset = arguments.preset or ["quality"]
    arguments.prior = arguments.prior or ["exp-dense"]

    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    cases = 0
    for case in draw_cases(arguments):
        cases += 1
        started = time.perf_counter()
        line = [case.name]
        for method, estimate in restore_all(case, arguments):
            seconds = time.perf_counter() - started
            rows = []
            for start, stop in case.stretches:
                counted = slice(start, stop)
                here = case.counted[counted]
                ratio = snr(case.clean[counted][here], estimate[counted][here])
                distance = log_spectral_distance(case.clean, estimate, case.rate, (start, stop))
                rows.append((ratio, distance, seconds))
            scores[method] += rows
            line.append(f"{method} {np.mean([row[0] for row in rows]):.2f}")
            started = time.perf_counter()
        print("  ".join(line), file=sys.stderr, flush=True)
    if not cases:
        raise SystemExit("no WAV files found")
    print(f"\n| method ({cases} recordings) | SNR (dB) | log-spectral distance (dB) | s |\n|---|---|---|---|")
    for method, values in scores.items():
        ratio, distance, seconds = np.mean(values, axis=0)
        print(f"| {method} | {ratio:.2f} | {distance:.2f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
