"""Restore one damaged recording with no training data.

    from dapcli import Settings, denoise, read_audio
    result = denoise(read_audio("noisy.wav"), Settings(prior="exp-dense"))
    result.save("restored.wav")

Names load on first use: importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # importing typing would take a third of the time until Ctrl-C is expected (__main__.py)
if TYPE_CHECKING:
    from typing import Any

    from dapcli.audio import Audio, read_audio
    from dapcli.metrics import score
    from dapcli.pipeline.result import Result
    from dapcli.pipeline.run import Progress
    from dapcli.settings import Settings
    from dapcli.tasks import TASKS
    from dapcli.tasks.denoise import denoise
    from dapcli.tasks.restore import restore
    from dapcli.tasks.separate import separate

__version__ = "0.1.0"

__all__ = ["TASKS", "Audio", "Progress", "Result", "Settings", "denoise", "read_audio", "restore", "score", "separate"]

_HOMES = {
    "Audio": "audio",
    "Progress": "pipeline.run",
    "Result": "pipeline.result",
    "Settings": "settings",
    "TASKS": "tasks",
    "denoise": "tasks.denoise",
    "read_audio": "audio",
    "restore": "tasks.restore",
    "score": "metrics",
    "separate": "tasks.separate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from dapcli.errors import not_installed

        raise ImportError(f"dapcli.{name}: {not_installed(error)}") from error
