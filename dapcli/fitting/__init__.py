"""Fitting a prior to an observation: the loop, the rules that stop it, and where it runs."""

from dapcli.fitting.device import choose_dtype, find_device
from dapcli.fitting.loop import Fit, Step
from dapcli.fitting.stopping import NEEDS_REFERENCE, STOPPING_RULES, StopContext, StoppingRule

__all__ = [
    "NEEDS_REFERENCE",
    "STOPPING_RULES",
    "Fit",
    "Step",
    "StopContext",
    "StoppingRule",
    "choose_dtype",
    "find_device",
]
