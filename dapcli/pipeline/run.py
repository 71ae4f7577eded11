"""The segments of one recording: what is learned from them, which are done, and how many are fitted at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapcli.audio import Recording, resample
from dapcli.errors import DeviceError, OutputError
from dapcli.fit import Step
from dapcli.pipeline.segments import plan_segments
from dapcli.pipeline.store import FittedSegment, Store
from dapcli.settings import SEGMENT_OVERLAP, Settings
from dapcli.tasks import Engine, Segment, Weights

#: What the names of threads begin with that fit segments.
FIT_THREAD = "dap-fit"

# Segments that the network learns from, the loudest ones, before it is refined on each.
_LEARNED_SEGMENTS = 8
# Of the loudest segment's power above the quietest's; below that a segment may hold nothing but noise.
_SOUND_SHARE = 0.1
# Cores that one fit keeps busy; further ones serve a second segment.
_CORES_PER_FIT = 4
_MAX_PARALLEL = 4


@dataclass(frozen=True)
class Progress:
    """Where a restoration stands: a step of the fit of a segment, and the iterations done and to do over all of them.

    ``segment`` is None while the network learns from several segments. ``noise_std`` is the level of what the estimate
    leaves over, full scale at 1.
    """

    step: Step
    segment: int | None
    segments: int
    completed: int
    total: int
    noise_std: float


def choose_parallel(device: torch.device) -> int:
    """How many segments to fit at the same time: where one leaves cores idle, or a GPU."""
    if device.type == "cuda":
        return _MAX_PARALLEL
    return 1 if device.type == "mps" else min(max(torch.get_num_threads() // _CORES_PER_FIT, 1), _MAX_PARALLEL)


def plan(recording: Recording, settings: Settings) -> list[tuple[int, int]]:
    """Start and end, in samples of the recording, of the segments that are fitted one by one."""
    longest, overlap = (round(seconds * recording.rate) for seconds in (settings.segment, SEGMENT_OVERLAP))
    return plan_segments(recording.length, longest, min(overlap, longest // 3))  # at odd rates both are rounded


class Task:
    """The restoration of one recording: its segments, those that are done, and how many fits run at once."""

    def __init__(
        self,
        engine: Engine,
        recording: Recording,
        reference: Recording | None,
        store: Store,
        on_step: Callable[[Progress], None] | None,
    ) -> None:
        self.plan = plan(recording, engine.settings)
        self.notes: list[str] = []
        self.learning: list[Step] = []
        self.learning_seconds = 0.0
        self.workers = 1
        self._engine = engine
        self._recording = recording
        self._reference = reference
        self._store = store
        self._on_step = on_step
        self._reading = threading.Lock()
        self._learning, self._share = engine.iterations
        self._powers: list[float] = []
        self._untouched: list[int] = []
        for index, (start, stop) in enumerate(self.plan):
            samples = recording.read(start, stop)
            self._powers.append(float(np.mean(samples**2)))
            if not engine.needs_fit(samples, start):
                self._untouched.append(index)
        self._finished = {index for index in range(len(self.plan)) if store.load(index)}
        self._iterations: dict[int | None, int] = dict.fromkeys(self._finished, self._share)

    def load(self, index: int) -> FittedSegment:
        """A finished segment."""
        segment = self._store.load(index)
        if segment is None:
            raise OutputError("a finished segment cannot be read back; start again")
        return segment

    def run(self, workers: int) -> None:
        """Fit all segments, ``workers`` at a time; fewer where memory does not suffice."""
        for index, power in enumerate(self._powers):
            if not power:
                self._keep_silence(index)
        if not any(self._powers):
            self.notes = ["the recording is silent; the output is the input"]
            return
        for index in self._untouched:
            if index not in self._finished:
                self._keep(index, self._recording.read(*self.plan[index]).astype(np.float32))
        pending = [index for index in range(len(self.plan)) if index not in self._finished]
        self.workers = min(workers, max(len(pending), 1))
        weights = self._learned() if self._learning and pending else None
        while pending:
            try:
                self._fit(pending, weights)
            except RuntimeError as error:
                _refuse_unless_memory(error, self.workers)
                # Its traceback holds the tensors that did not fit.
                error.__traceback__ = None
                self.workers //= 2
                at_once = "one segment" if self.workers == 1 else f"{self.workers} segments"
                self.notes.append(f"memory did not suffice for more than {at_once} at a time")
                if self._engine.device.type == "cuda":
                    torch.cuda.empty_cache()
            pending = [index for index in pending if index not in self._finished]

    def _keep_silence(self, index: int) -> None:
        start, stop = self.plan[index]
        rate = self._recording.rate
        self.notes.append(f"silence from {start / rate:.2f} to {stop / rate:.2f} s is left as it is")
        shape = self._engine.sources * self._recording.channels, stop - start
        self._keep(index, np.zeros(shape, dtype=np.float32))

    def _keep(self, index: int, estimate: NDArray[np.float32]) -> None:
        """Take an estimate ``[K * C, n]`` for which nothing was fitted."""
        self._store.save(index, FittedSegment(estimate, None))
        self._finished.add(index)
        self._iterations[index] = self._share

    def _learned(self) -> Weights:
        """What the network learns from the recording, unless an earlier run has left it."""
        weights = self._store.load_weights()
        if weights is None:
            chosen = with_sound(self._powers)
            started = time.perf_counter()
            try:
                weights = self._engine.learn(
                    [self._read(self._recording, index) for index in chosen], self._report_learning
                )
            except RuntimeError as error:
                _refuse_unless_memory(error, 1)
                raise
            self.learning_seconds = time.perf_counter() - started
            self._store.save_weights(weights)
        self._iterations[None] = self._learning
        return weights

    def _fit(self, indices: Iterable[int], weights: Weights | None) -> None:
        """Fit segments, several at a time, each in a thread of its own; reports come from the calling thread."""
        device = self._engine.device
        events: queue.SimpleQueue[tuple[int, Step] | Future[int]] = queue.SimpleQueue()
        stopped = threading.Event()

        def fit(index: int) -> int:
            def report(step: Step) -> None:
                if stopped.is_set():
                    raise _StoppedError
                events.put((index, step))

            start, stop = self.plan[index]
            samples = self._read(self._recording, index)
            reference = None if self._reference is None else self._read(self._reference, index)
            with _own_stream(device):
                estimate, record = self._engine.fit_segment(Segment(samples, start, stop, weights, reference), report)
                restored = resample(estimate.double().cpu().numpy(), self._engine.rate, self._recording.rate)
            self._store.save(index, FittedSegment(restored[:, : stop - start].astype(np.float32), record))
            self._finished.add(index)
            return index

        threads = torch.get_num_threads()
        if device.type == "cpu":
            torch.set_num_threads(max(threads // self.workers, 1))
        # Until it is asked, a new thread does not know torch's number, and its first fit would have other bits.
        with ThreadPoolExecutor(self.workers, thread_name_prefix=FIT_THREAD, initializer=torch.get_num_threads) as pool:
            try:
                running = 0
                for index in indices:
                    pool.submit(fit, index).add_done_callback(events.put)
                    running += 1
                while running:
                    event = events.get()
                    if isinstance(event, Future):
                        running -= 1
                        self._iterations[event.result()] = self._share
                    else:
                        self._report(*event)
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)

    def _read(self, recording: Recording, index: int) -> Tensor:
        """A segment ``[C, n]`` at the working rate."""
        with self._reading:
            samples = recording.read(*self.plan[index])
        return torch.from_numpy(resample(samples, recording.rate, self._engine.rate))

    def _report_learning(self, step: Step) -> None:
        self.learning.append(step)
        self._report(None, step)

    def _report(self, index: int | None, step: Step) -> None:
        if self._on_step is None:
            return
        self._iterations[index] = step.iteration
        # Spectrograms are fitted, people think in samples: white noise of level 1 has this power in a bin.
        level = step.residual * self._engine.stft.white_gain**-0.5
        total = self._learning + self._share * len(self.plan)
        self._on_step(Progress(step, index, len(self.plan), sum(self._iterations.values()), total, level))


def with_sound(powers: Sequence[float]) -> list[int]:
    """Indices of the loudest segments, without those that may hold nothing but noise."""
    heard = sorted((index for index, power in enumerate(powers) if power), key=lambda index: (-powers[index], index))
    loudest, quietest = powers[heard[0]], powers[heard[-1]]
    least = min(quietest + _SOUND_SHARE * (loudest - quietest), loudest / 2)
    return sorted(index for index in heard[:_LEARNED_SEGMENTS] if powers[index] >= least)


def _own_stream(device: torch.device) -> AbstractContextManager[object]:
    """Lets a thread's work on a GPU run beside that of others."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


class _StoppedError(Exception):
    """Ends a thread whose result nobody waits for any more."""


def _refuse_unless_memory(error: RuntimeError, workers: int) -> None:
    """Re-raise anything but a lack of memory that fewer segments at a time can help.

    Raises:
        DeviceError: One segment alone does not fit.
    """
    # torch.OutOfMemoryError is a RuntimeError; on the CPU only the text tells.
    if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
        raise error
    if workers == 1:
        raise DeviceError("out of memory; use a shorter --segment or a smaller --width") from error
