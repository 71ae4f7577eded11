"""Networks fitted to the segments of a recording, where all parts of dap meet: a class for each task."""

from dapcli.tasks.denoise import COARSENESS, Denoiser, count_iterations
from dapcli.tasks.restore import Repairer
from dapcli.tasks.separate import Separator
from dapcli.tasks.solver import Engine, Report, Segment, SegmentFit, Weights

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
