"""Fitting a prior to an observation: the loop, the rules that stop it, and where it runs."""

from dapcli.fit.device import choose_dtype, find_device
from dapcli.fit.loop import Fit, Step
from dapcli.fit.optimizers import OPTIMIZERS
from dapcli.fit.stopping import STOPPING_RULES, Need, StopContext, StoppingRule, check_rule

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
