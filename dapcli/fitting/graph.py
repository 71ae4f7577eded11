"""CUDA graphs: one iteration is recorded once and then started as a whole.

A small network's iteration is hundreds of short kernels, which a GPU finishes faster than Python can start them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

_RECORDING = threading.Lock()

#: Iterations to run before recording, in which torch allocates and chooses what a graph must find ready.
WARM_UP = 3


def capture(
    step: Callable[[], tuple[Tensor, Tensor]], generator: torch.Generator
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Record ``step``, which draws from ``generator`` and never waits for the GPU, without running it.

    Every call of what is returned runs the recorded kernels and returns copies of their results. Other threads may
    use the GPU at the same time.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    # A stream of its own, and one thread at a time, because torch would have all threads record on the same stream.
    stream = torch.cuda.Stream(generator.device)  # type: ignore[no-untyped-call]
    with _RECORDING, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        loss, output = step()

    def replay() -> tuple[Tensor, Tensor]:
        graph.replay()
        return loss.clone(), output.clone()

    return replay
