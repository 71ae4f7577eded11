"""Fitting a network to an objective: the loop, optimizers, the rules that stop it, and where it runs."""

from dapcli.fit.device import choose_dtype, find_device
from dapcli.fit.loop import Fitted, Iteration, Network, Objective, Report, fit
from dapcli.fit.optimizers import OPTIMIZERS
from dapcli.fit.stopping import STOPPING_RULES, Need, Step, StopContext, StoppingRule, check_rule

__all__ = [
    "OPTIMIZERS",
    "STOPPING_RULES",
    "Fitted",
    "Iteration",
    "Need",
    "Network",
    "Objective",
    "Report",
    "Step",
    "StopContext",
    "StoppingRule",
    "check_rule",
    "choose_dtype",
    "find_device",
    "fit",
]
