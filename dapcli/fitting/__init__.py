"""Fitting a prior to an observation: the loop, the rules that stop it, and where it runs."""

from dapcli.fitting.device import choose_dtype, find_device
from dapcli.fitting.loop import Fit, Step
from dapcli.fitting.optimizers import OPTIMIZERS
from dapcli.fitting.stopping import STOPPING_RULES, Need, StopContext, StoppingRule, check_rule

__all__ = [
    "OPTIMIZERS",
    "STOPPING_RULES",
    "Fit",
    "Need",
    "Step",
    "StopContext",
    "StoppingRule",
    "check_rule",
    "choose_dtype",
    "find_device",
]
