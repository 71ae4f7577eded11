"""Restore one damaged recording with no training data.

    from dapcli import Settings, denoise, read_audio
    result = denoise(read_audio(Path("noisy.wav")), Settings(prior="exp-dense"))

Names load on first use: importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dapcli.audio import Audio, read_audio
    from dapcli.metrics import score
    from dapcli.pipeline.result import Result
    from dapcli.pipeline.run import Progress
    from dapcli.settings import PRESETS, REPAIR_PRESETS, SEPARATION_PRESETS, Settings
    from dapcli.tasks._api_restore import denoise, repair
    from dapcli.tasks._api_separation import Separation, separate

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "REPAIR_PRESETS",
    "SEPARATION_PRESETS",
    "Audio",
    "Progress",
    "Result",
    "Separation",
    "Settings",
    "denoise",
    "read_audio",
    "repair",
    "score",
    "separate",
]

_HOMES = {
    "Audio": "audio",
    "PRESETS": "settings",
    "Progress": "task",
    "REPAIR_PRESETS": "settings",
    "Result": "result",
    "SEPARATION_PRESETS": "settings",
    "Separation": "separation",
    "Settings": "settings",
    "denoise": "restore",
    "read_audio": "audio",
    "repair": "restore",
    "score": "metrics",
    "separate": "separation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
