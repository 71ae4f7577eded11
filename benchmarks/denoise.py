"""Compare dap with every peer on the same noisy recordings.

    python benchmarks/denoise.py FOLDER_OR_WAV... [--noise FOLDER] [--preset quality ...] [--profile]

Damages each clean recording with white noise of standard deviation 0.1, or with a stretch of a noise file at an SNR
drawn from 5 to 9 dB, restores it with dap (blind, and by the oracle rule) and with the peers (blind, and told the
noise), and prints mean SNR and PESQ-NB as a Markdown table. With --profile every recording starts with half a second
of nothing but noise, which is the only thing that dap and the told peers may know of it. All randomness comes from
--seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import add_noise

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import Audio, read_audio
from dapcli.baselines import BASELINES, Observed, noise_power
from dapcli.metrics import MetricUndefined
from dapcli.metrics.perceptual import pesq_nb
from dapcli.metrics.waveform import snr_db
from dapcli.settings import PRESETS
from dapcli.tasks._api_restore import denoise

Array = NDArray[np.float64]

WHITE_STD = 0.1
SNR_RANGE_DB = (5.0, 9.0)
PROFILE_S = 0.5


class Case(NamedTuple):
    """One damaged recording: ``noise`` is what was added, and ``noisy`` starts with ``lead`` samples of noise only."""

    name: str
    rate: int
    clean: Array
    noise: Array
    noisy: Array
    lead: int


class Score(NamedTuple):
    """SNR in dB, PESQ-NB and seconds of one method on one case."""

    snr: float
    pesq: float
    seconds: float


def draw_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    paths: list[Path] = []
    for path in arguments.clean:
        paths += sorted(path.glob("*.wav")) if path.is_dir() else [path]
    noises = sorted(arguments.noise.glob("*.wav")) if arguments.noise else [None]
    for path in paths[: arguments.clips]:
        audio = read_audio(path)
        clean = audio.samples[0]
        if arguments.seconds:
            # From the middle, where clips are seldom silent.
            size = min(clean.size, round(arguments.seconds * audio.rate))
            clean = clean[(clean.size - size) // 2 :][:size]
        lead = round(PROFILE_S * audio.rate) if arguments.profile else 0
        for noise_path in noises:
            name = f"{path.stem}+{noise_path.stem if noise_path else 'white'}"
            # A seed of the names alone, so that a clip is damaged in the same way whatever else is measured.
            rng = np.random.default_rng([arguments.seed, *name.encode()])
            noise = draw_noise(clean, lead, noise_path, audio.rate, rng)
            noisy = noise + np.concatenate([np.zeros(lead), clean])
            yield Case(name, audio.rate, clean, noise, noisy, lead)


def draw_noise(clean: Array, lead: int, path: Path | None, rate: int, rng: np.random.Generator) -> Array:
    length = lead + clean.size
    if path is None:
        return WHITE_STD * rng.standard_normal(length)
    noise = read_audio(path)
    if noise.rate != rate:
        raise SystemExit(f"{path}: {noise.rate} Hz, the clean recording {rate} Hz")
    start = rng.integers(0, max(1, noise.length - length + 1))
    stretch = np.resize(noise.samples[0, start:], length)
    snr = torch.tensor(rng.uniform(*SNR_RANGE_DB))
    mixed = add_noise(torch.from_numpy(clean), torch.from_numpy(stretch[lead:]), snr)
    gain = float(np.linalg.norm(mixed.numpy() - clean) / np.linalg.norm(stretch[lead:]))
    return stretch * gain


def restore_all(case: Case, arguments: argparse.Namespace) -> Iterator[tuple[str, Array]]:
    known = case.noise[: case.lead] if case.lead else case.noise
    yield "input", case.noisy
    blind = Observed(case.noisy[None], case.rate)
    told = replace(blind, noise_psd=noise_power(known[None], case.rate))
    for name, peer in BASELINES["denoise"].items() if arguments.peers else ():
        if name != "input":
            yield f"{name}, {'trained' if peer.trained else 'blind'}", peer(blind)[0, 0]
        if peer.told:
            yield f"{name}, told", peer(told)[0, 0]
    audio = Audio(case.noisy[None], case.rate)
    reference = np.concatenate([np.zeros(case.lead), case.clean])
    profile = (0.0, PROFILE_S) if case.lead else None
    for preset in arguments.preset:
        for rule in ("auto", "oracle") if arguments.oracle else ("auto",):
            settings = replace(PRESETS[preset], stop=rule, seed=arguments.seed)
            if arguments.prior:
                settings = replace(settings, prior=arguments.prior)
            if arguments.iterations:
                settings = replace(settings, iterations=arguments.iterations)
            result = denoise(audio, settings, noise_profile=profile, reference=Audio(reference[None], case.rate))
            yield f"dap {preset}, {'blind' if rule == 'auto' else 'oracle'}", result.audio.samples[0]


def measure(case: Case, estimate: Array, seconds: float) -> Score:
    clean, estimate = case.clean[None], estimate[None, case.lead :]
    try:
        pesq = pesq_nb(clean, estimate, case.rate)
    except MetricUndefined:
        pesq = float("nan")
    return Score(snr_db(clean, estimate, case.rate), pesq, seconds)


def print_table(scores: dict[str, list[Score]]) -> None:
    print(f"\n| method ({len(scores['input'])} recordings) | SNR (dB) | PESQ-NB | s |\n|---|---|---|---|")
    for method, rows in scores.items():
        snr, pesq, seconds = np.nanmean(np.array(rows), axis=0)
        print(f"| {method} | {snr:.2f} | {pesq:.2f} | {seconds:.1f} |")


def make_parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks of denoising share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=Path, nargs="+", help="clean WAV files or folders of them")
    parser.add_argument("--noise", type=Path, help="folder of noise WAV files; white noise without it")
    parser.add_argument("--preset", action="append", help="presets of dap to run")
    parser.add_argument("--prior", help="prior instead of the preset's")
    parser.add_argument("--iterations", type=int, help="iterations instead of the preset's")
    parser.add_argument("--clips", type=int, help="first clips only")
    parser.add_argument("--seconds", type=float, help="that much from the middle of each clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(profile=False)
    return parser


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--profile", action="store_true", help="tell dap and peers a noise-only stretch")
    parser.add_argument("--no-oracle", dest="oracle", action="store_false", help="leave out the oracle rule")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave out the peers")
    arguments = parser.parse_args()
    arguments.preset = arguments.preset or ["quality"]

    scores: dict[str, list[Score]] = defaultdict(list)
    for case in draw_cases(arguments):
        started = time.perf_counter()
        line = [case.name]
        for method, estimate in restore_all(case, arguments):
            score = measure(case, estimate, time.perf_counter() - started)
            scores[method].append(score)
            line.append(f"{method} {score.snr:.2f}/{score.pesq:.2f}")
            started = time.perf_counter()
        print("  ".join(line), file=sys.stderr, flush=True)
    if not scores:
        raise SystemExit("no WAV files found")
    print_table(scores)


if __name__ == "__main__":
    main()
