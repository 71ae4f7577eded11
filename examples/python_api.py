"""Restore a recording from Python: python examples/python_api.py NOISY RESTORED."""

from __future__ import annotations

import sys

from dapcli import TASKS, Progress, denoise, read_audio


def show(progress: Progress) -> None:
    """Print every tenth iteration."""
    if progress.completed % 10 == 0:
        print(f"{progress.completed} of {progress.total} iterations, loss {progress.iteration.loss:.4g}")


if __name__ == "__main__":
    result = denoise(read_audio(sys.argv[1]), TASKS["denoise"].presets["fast"], on_step=show)
    print(f"noise of standard deviation {result.noise_std}, input SNR about {result.input_snr_db} dB")
    result.save(sys.argv[2])
