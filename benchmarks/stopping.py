"""How close every blind stopping rule comes to the oracle, on the same fits.

    python benchmarks/stopping.py FOLDER_OR_WAV... [--noise FOLDER] [--preset generate] [--prior exp-dense]

Fits each noisy recording once, lets every rule judge every iterate, and prints the SNR of the iterate that each would
have returned (the fit alone, without post-filter) and how much it loses to the best one. The recordings are damaged
as in benchmarks/denoise.py.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.denoise import draw_cases, make_parser
from dapcli.audio import Audio
from dapcli.fit import STOPPING_RULES, Need, StopContext, StoppingRule
from dapcli.settings import PRESETS
from dapcli.tasks._api_restore import denoise


class AllRules:
    """A rule that never stops, and notes what each registered rule and the oracle make of every iterate."""

    patience: int | None = None
    needs: Need | None = "hidden"
    latest: AllRules

    def __init__(self, context: StopContext) -> None:
        self.rules: dict[str, StoppingRule] = {name: rule(context) for name, rule in RULES.items()}
        self.criteria: dict[str, list[float]] = {name: [] for name in RULES}
        assert context.reference is not None
        self.power = float(context.reference.square().mean())
        AllRules.latest = self

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Collect the others' criteria."""
        for name, rule in self.rules.items():
            self.criteria[name].append(rule.criterion(output, average))
        return 0.0

    def verdicts(self) -> dict[str, tuple[int, float]]:
        """For each rule the iteration that it returns and the SNR there, dB."""
        snr = 10 * np.log10(self.power / np.array(self.criteria["oracle"]))
        chosen = {name: stop(self.criteria[name], rule.patience) for name, rule in self.rules.items()}
        return {name: (index + 1, float(snr[index])) for name, index in chosen.items()}


def stop(criteria: list[float], patience: int | None) -> int:
    """Index of the iterate that the fitting loop would keep."""
    best = 0
    for index, value in enumerate(criteria):
        if value < criteria[best]:
            best = index
        if patience is not None and index - best >= patience:
            break
    return best


# There are no training_pairs in recordings with noise.
RULES = {name: rule for name, rule in STOPPING_RULES.items() if rule.needs != "training_pairs"}


def main() -> None:
    parser = make_parser(__doc__ or "")
    arguments = parser.parse_args()
    STOPPING_RULES["all"] = AllRules
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for case in draw_cases(arguments):
        for preset in arguments.preset or ["generate"]:
            settings = replace(PRESETS[preset], stop="all", seed=arguments.seed)
            if arguments.prior:
                settings = replace(settings, prior=arguments.prior)
            if arguments.iterations:
                settings = replace(settings, iterations=arguments.iterations)
            denoise(Audio(case.noisy[None], case.rate), settings, reference=Audio(case.clean[None], case.rate))
            verdicts = AllRules.latest.verdicts()
            print(
                f"{case.name} {preset}", *(f"{n} {s:.2f}@{i}" for n, (i, s) in verdicts.items()), sep="  ", flush=True
            )
            for name, (_, snr) in verdicts.items():
                found[name].append(snr)
    print("\n| rule | SNR (dB) | below the oracle (dB) | at the worst |\n|---|---|---|---|")
    for name, values in found.items():
        below = np.array(found["oracle"]) - values
        print(f"| {name} | {np.mean(values):.2f} | {below.mean():.2f} | {below.max():.2f} |")


if __name__ == "__main__":
    main()
