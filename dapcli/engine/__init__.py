"""Networks fitted to the segments of a recording, where all parts of dap meet: a class for each task."""

from dapcli.engine.core import Engine, Report, Segment, SegmentFit, Weights
from dapcli.engine.denoising import COARSENESS, Denoiser, count_iterations
from dapcli.engine.repairing import Repairer
from dapcli.engine.separating import Separator

__all__ = [
    "COARSENESS",
    "Denoiser",
    "Engine",
    "Repairer",
    "Report",
    "Segment",
    "SegmentFit",
    "Separator",
    "Weights",
    "count_iterations",
]
