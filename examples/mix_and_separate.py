"""Train a network on the recordings of two instruments to separate their mixtures, and score it on others.

    python examples/mix_and_separate.py train PIANO DRUMS harmonic.pt --prior harmonic
    python examples/mix_and_separate.py score harmonic.pt --first GUITAR --output-dir DIR

Supervised mix and separate, after Zhang et al., "Deep Audio Priors Emerge from Harmonic Convolutional Networks" (ICLR
2020), section 4.4: 1 s of a recording of either folder are mixed at one level, and the network predicts the first one's
ratio mask from the mixture's spectrogram (1022 / 64 samples at 16 kHz), with the L1 loss. One recording in ten is kept
for validation. `score` mixes those, or recordings of an instrument that the network has never heard, and writes what
`dap evaluate separate` writes, with SDR, SIR and SAR. Several checkpoints are compared on the same mixtures.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dapcli import TASKS, Settings
from dapcli.audio import Samples
from dapcli.audio.files import check_writable, digest, write_files
from dapcli.errors import DapError, InputError, PartialError, SettingsError
from dapcli.evaluation.clips import Clip, Drawn, collect, draw_clips
from dapcli.evaluation.folder import Folder
from dapcli.evaluation.methods import Estimate, Method, make_methods
from dapcli.evaluation.protocols import Mixture
from dapcli.evaluation.run import Evaluation, run
from dapcli.fit.device import find_device
from dapcli.fit.optimizers import OPTIMIZERS
from dapcli.priors import build_prior
from dapcli.report.comparison import Comparison, write_comparison
from dapcli.report.console import make_console, print_comparison
from dapcli.settings import look_up
from dapcli.signal.stft import STFT
from dapcli.tasks.check import usable_priors
from dapcli.tasks.problem import Problem

SECONDS = 1.0
VALIDATION_PART = 0.1
# The papers' transform and optimizer.
SETTINGS = replace(TASKS["separate"].presets["paper"], estimator="ratio-mask")
TRAINING = ("prior", "base_channels", "optimizer", "learning_rate", "seed")
# Mixtures for the validation loss, and steps from one to the next.
CHECKS, EVERY = 10, 50
# Keeps logarithms and ratios of empty bins finite; the mean power is at 1.
FLOOR = 1e-5


class Trained(NamedTuple):
    """A network, its settings, and the recordings of both instruments that are kept for validation."""

    network: nn.Module
    settings: Settings
    validation: list[list[str]]

    def transform(self, rate: int) -> STFT:
        """Its transform at ``rate`` Hz."""
        return STFT.for_rate(rate, self.settings.window, self.settings.hop, self.settings.window_shape)

    def masks(self, mixture: Tensor) -> Tensor:
        """Ratio masks ``[C, 1, F, T]`` of the first instrument in a mixture's spectrogram ``[C, 2, F, T]``."""
        power = mixture.square().sum(dim=1, keepdim=True)
        features = (power / power.mean().clamp(min=FLOOR**2) + FLOOR).log()
        features = (features - features.mean()) / features.std().clamp(min=FLOOR)
        return torch.cat([self.network(channel) for channel in torch.split(features, 1)]).sigmoid()

    def loss(self, sources: Samples, rate: int, device: str) -> Tensor:
        """The mean L1 distance of the masks from those of two sources ``[2, C, N]``, each bin by its amplitude."""
        spectrograms = self.transform(rate).forward(torch.from_numpy(sources).float().to(find_device(device)))
        first, second = spectrograms.square().sum(dim=2, keepdim=True).sqrt()
        mixture = spectrograms.sum(dim=0)
        weight = mixture.square().sum(dim=1, keepdim=True).sqrt()
        wanted = first / (first + second).clamp(min=FLOOR)
        return F.l1_loss(weight * self.masks(mixture), weight * wanted, reduction="sum") / weight.sum()


@dataclass(frozen=True)
class Masking(Method):
    """The mixture by the masks of a checkpoint's network; what they leave is the second instrument."""

    path: Path = Path()

    def restore(self, problem: Problem[Any], truth: Samples | None) -> Estimate:  # noqa: ARG002
        """Both sources ``[2, C, N]``, which sum to the mixture."""
        trained = load(self.path, self.device)
        mixture = torch.from_numpy(problem.samples).float().to(find_device(self.device))
        stft = trained.transform(problem.rate)
        spectrogram = stft.forward(mixture)
        with torch.no_grad():
            first = stft.inverse(trained.masks(spectrogram) * spectrogram, mixture.shape[-1])
        return Estimate(torch.stack([first, mixture - first]).cpu().double().numpy())


def load(path: Path, device: str) -> Trained:
    """What `train` has saved; raises ``InputError`` where that is something else."""
    place = find_device(device)
    try:
        saved = torch.load(path, map_location=place, weights_only=True)
        settings = Settings(**saved["settings"])
        network = build_prior(settings, 1, 1).to(place)
        network.load_state_dict(saved["network"])
        return Trained(network, settings, saved["validation"])
    except Exception as error:  # torch raises whatever its reading of other files ends in
        raise InputError(f"{path}: is no checkpoint of this script ({type(error).__name__}); train one") from error


def find(paths: Sequence[Path], outside: Path, count: int | None = None) -> list[Path]:
    """So many recordings below paths, always the same ones, or all that are long enough."""
    return [clip.paths[0] for clip in draw_clips([collect(paths, outside=outside)], SECONDS, count, 0).clips]


def mix(files: Sequence[Sequence[Path]], count: int, seed: int) -> tuple[Clip, ...]:
    """So many pairs of both instruments' files in a random order, or all there are."""
    pairs = list(product(*files))
    drawn = [pairs[index] for index in np.random.default_rng(seed).permutation(len(pairs))[:count]]
    return tuple(Clip(paths, tuple(map(digest, paths)), paired=False) for paths in drawn)


def train(options: argparse.Namespace) -> None:
    """Train on nine recordings in ten of both folders, and save the network."""
    check_writable(options.checkpoint, overwrite=options.overwrite)
    look_up(options.prior, usable_priors(TASKS["separate"], SETTINGS.estimator), "prior")
    look_up(options.optimizer, OPTIMIZERS, "optimizer")
    settings = replace(SETTINGS, **{name: getattr(options, name) for name in TRAINING})
    torch.manual_seed(options.seed)
    network = build_prior(settings, 1, 1).to(find_device(options.device))
    recordings = [find([folder], options.checkpoint) for folder in (options.first, options.second)]
    kept = [find(files, options.checkpoint, max(1, round(VALIDATION_PART * len(files)))) for files in recordings]
    heard = [sorted({*files} - {*others}) for files, others in zip(recordings, kept, strict=True)]
    if not all(heard):
        raise InputError("a folder has one recording alone; give two at least, of which one is kept for validation")
    trained = Trained(network, settings, [[str(path.resolve()) for path in files] for files in kept])
    clips = mix(kept, CHECKS, options.seed)
    checks = [Evaluation(Mixture(), settings, options.device, SECONDS, clips, ()).case(clip) for clip in clips]
    optimizer = OPTIMIZERS[settings.optimizer](network.parameters(), settings.learning_rate)
    rng = np.random.default_rng(options.seed)
    for step in range(1, options.steps + 1):
        clip = Clip(tuple(files[rng.integers(len(files))] for files in heard), (), paired=False)
        case = Mixture().degrade(clip.read(SECONDS, rng), rng)
        loss = trained.loss(case.truth, case.problem.rate, options.device)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.rate = (1 - (step - 1) / options.steps) * settings.learning_rate
        optimizer.step()
        if step % EVERY == 0 or step == options.steps:
            with torch.no_grad():
                losses = [float(trained.loss(each.truth, each.problem.rate, options.device)) for each in checks]
            print(f"step {step}: L1 {float(loss.detach()):.4f}, validation {np.mean(losses):.4f}", flush=True)
    saved = {"settings": asdict(settings), "network": network.state_dict(), "validation": trained.validation}
    file = io.BytesIO()
    torch.save(saved, file)
    write_files({options.checkpoint: file.getvalue()})


def score(options: argparse.Namespace) -> None:
    """Separate mixtures with every checkpoint and baseline, and compare."""
    names = [*(path.stem for path in options.checkpoints), *options.baseline]
    if len({*names}) < len(names):
        raise SettingsError(f"two of {', '.join(names)} have one name; rename a checkpoint")
    kept, *others = [load(path, options.device).validation for path in options.checkpoints]
    if any(each != kept for each in others) and not (options.first and options.second):
        raise SettingsError("these checkpoints have other recordings for validation; give --first and --second")
    unheard = zip((options.first, options.second), kept, strict=True)
    files = [find([folder] if folder else [*map(Path, each)], options.output_dir) for folder, each in unheard]
    clips = mix(files, options.mixtures, options.seed)
    settings = replace(SETTINGS, seed=options.seed)
    untouched, *peers = make_methods("separate", (), options.baseline, settings, options.device, oracle=False)
    own = [Masking("separate", path.stem, settings, options.device, path=path) for path in options.checkpoints]
    evaluation = Evaluation(Mixture(), settings, options.device, SECONDS, clips, (untouched, *own, *peers))
    checkpoints = {path.stem: digest(path) for path in options.checkpoints}
    configuration = {**evaluation.configuration(), "settings": checkpoints}  # which hold their settings
    folder = Folder(options.output_dir)
    with folder.open(configuration, overwrite=options.overwrite):
        outcome = run(evaluation, folder, jobs=1, on_unit=None)
        comparison = Comparison(configuration, outcome, Drawn(clips, 0, {}))
        write_comparison(folder, comparison)
    print_comparison(make_console(), comparison)
    if outcome.failures:
        raise PartialError(f"{comparison.failed}; results.md in {options.output_dir} says why")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train", help="train a network, and save it")
    one.set_defaults(run=train)
    one.add_argument("first", type=Path, metavar="FIRST", help="folder of one instrument's recordings, 1 s or longer")
    one.add_argument("second", type=Path, metavar="SECOND", help="folder of the other's")
    one.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file to write")
    one.add_argument("--prior", default="harmonic", help="network, one of those that `dap priors` lists")
    one.add_argument("--base-channels", type=int, default=8, help="filters of its first convolution (the paper: 35)")
    one.add_argument("--optimizer", default="muon", help="muon, or adam as in the paper, with --learning-rate 0.001")
    one.add_argument("--learning-rate", type=float, default=0.02, help="step size, which falls to 0")
    one.add_argument("--steps", type=int, default=600, help="mixtures to train on, one in a step")
    two = commands.add_parser("score", help="separate mixtures that it was not trained on")
    two.set_defaults(run=score)
    two.add_argument(
        "checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="others are compared with the first"
    )
    two.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="folder for all results")
    two.add_argument("--first", type=Path, metavar="FOLDER", help="an unheard instrument in place of the first one")
    two.add_argument("--second", type=Path, metavar="FOLDER", help="an unheard instrument in place of the second one")
    two.add_argument("--baseline", action="append", default=[], help="another method, as in `dap evaluate separate`")
    two.add_argument("--mixtures", type=int, default=24, help="mixtures to draw, each of another pair of recordings")
    for command in (one, two):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
        command.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
        command.add_argument("--overwrite", action="store_true", help="replace what is there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, and tells of an error in one line."""
    options = parse(arguments)
    try:
        options.run(options)
    except DapError as error:
        print(f"mix_and_separate: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
