"""Which rule stops a fit: by task and estimator, what ``auto`` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from dapcli.settings import Settings

#: By estimator, the rule that measured best (docs/results.md), and why it suits.
AutomaticRules = Mapping[str, tuple[str, str]]

DENOISING: AutomaticRules = {
    "mask": ("fixed", "a mask is fitted to its own estimated error and hardly takes up noise"),
    "generate": ("held-out", "samples that the fit has not seen tell sound from noise"),
}
REPAIRING: AutomaticRules = {
    "mix": ("validation", "what the network learns from some training_pairs must help with others"),
    "generate": ("fixed", "there is no noise that the network could take up"),
}
SEPARATING: AutomaticRules = {
    "share": ("fixed", "the structure of a separation is learned in the first iterations, its errors later"),
    "paper": ("fixed", "a mixture has no noise that the networks could take up"),
}


def choose_rule(settings: Settings, automatic: AutomaticRules) -> tuple[str, str]:
    """The stopping rule to use, and why: the one that was asked for, or the task's automatic one."""
    return automatic[settings.estimator] if settings.stop == "auto" else (settings.stop, "asked for")
