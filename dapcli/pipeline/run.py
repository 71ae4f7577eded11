"""The run over a recording: its segments, several fitted at a time, and what one network learns from them before."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dapcli.audio import Recording, Samples, resample
from dapcli.audio.recording import check_recording, shape_in_words
from dapcli.audio.view import view
from dapcli.errors import DeviceError, InputError, OutputError
from dapcli.fit import Iteration
from dapcli.pipeline.result import Estimates, Result
from dapcli.pipeline.segments import Joined, plan
from dapcli.pipeline.solver import Segment, SegmentFit, Solver, Weights
from dapcli.pipeline.store import FittedSegment, Store
from dapcli.priors.cost import receptive_field
from dapcli.signal.gaps import merge

#: Prefix of the names of threads that fit segments.
FIT_THREAD = "dap-fit"

#: Segments that the network is pretrained on, the loudest ones, before it is finetuned on each.
PRETRAINED_SEGMENTS = 8
# Of the loudest segment's power above the quietest's; below that a segment may hold nothing but noise.
_SOUND_FRACTION = 0.1
# Fits take turns in Python, and memory grows with them. More networks side by side hardly gain.
_MAX_PARALLEL, _MAX_JOINT = 4, 16


@dataclass(frozen=True)
class Progress:
    """Where a run stands: an iteration of the fit of a segment, and iterations done and to do over all segments.

    ``segment`` is None while the network is pretrained. ``noise_std`` is the level of what the estimate leaves over,
    full scale at 1.
    """

    iteration: Iteration
    segment: int | None
    segments: int
    completed: int
    total: int
    noise_std: float


OnStep = Callable[[Progress], None]


def choose_parallel(solver: Solver) -> int:
    """How many segments to fit at the same time: one for each core, as far as Python can keep them busy."""
    if solver.joint:
        return _MAX_JOINT
    cores = {"cuda": _MAX_PARALLEL, "mps": 1}.get(solver.device.type, solver.threads)
    return min(cores, _MAX_PARALLEL)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """One thread for each fit on a CPU.

    Two are little faster than one, and several times slower beside other programs, for each waits for the other. And
    the bits of a fit do not depend on how many segments are fitted at the same time.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Pipeline:
    """A recording in segments, a solver that fits them, and a store that keeps what is finished.

    ``references`` are the K sources as they were, for the oracle stopping rule. ``on_step`` is called after every
    iteration, always from the calling thread.

    Raises:
        InputError: The recording is too short, or the references do not match it.
    """

    recording: Recording
    solver: Solver
    references: Sequence[Recording] = ()
    on_step: OnStep | None = None
    store: Store | None = None

    def __post_init__(self) -> None:
        recording, solver = self.recording, self.solver
        if not isinstance(self.references, Sequence):
            raise InputError("references are a sequence, with one for each source; give [reference]")
        for each in self.references:
            check_recording(each, "a reference")
        if recording.length < 2:
            raise InputError("the recording has one sample only; there is nothing to fit to")
        if self.references and len(self.references) != len(solver.types):
            raise InputError(f"{len(self.references)} references for {len(solver.types)} sources; give one for each")
        shape = shape_in_words(recording)
        for each in self.references:
            if shape_in_words(each) != shape:
                raise InputError(f"a reference has {shape_in_words(each)}, the recording {shape}; they must match")
        self._view = view(recording, solver.alike)
        self.solver = solver.for_view(self._view)
        self.plan = plan(recording, solver.settings)
        # A folder that holds nothing yet is false.
        self._store = Store() if self.store is None else self.store
        self._store.begin(len(self.plan))
        self._notes: list[str] = []
        self._pretraining: list[Iteration] = []
        self._pretraining_seconds = 0.0
        self._workers = 1
        self._reading = threading.Lock()
        self._finished = {index for index in range(len(self.plan)) if self._store.load(index)}
        self._most_pretraining, self._most = solver.iterations
        self._done: dict[int | None, int] = {}

    def run(self, parallel: int | None = None) -> Result:
        """Fit all segments, ``parallel`` at a time, and join their estimates.

        Fewer are fitted at a time where memory does not suffice; by default it depends on what the device has room for.

        Raises:
            DeviceError: The device's memory does not suffice for one segment.
        """
        started = time.perf_counter()
        powers = self._keep_unfitted()
        pending = [index for index in range(len(self.plan)) if index not in self._finished]
        workers = choose_parallel(self.solver) if parallel is None else parallel
        self._workers = min(workers, max(len(pending), 1))
        with _one_thread(self.solver.device):
            weights = self._pretrained(powers) if self._most_pretraining and pending else None
            while pending:
                try:
                    self._fit(pending, weights)
                except RuntimeError as error:
                    _refuse_unless_memory(error, self._workers)
                    # Its traceback holds the tensors that did not fit.
                    error.__traceback__ = None
                    self._workers //= 2
                    at_once = "one segment" if self._workers == 1 else f"{self._workers} segments"
                    self._notes.append(f"memory did not suffice for more than {at_once} at a time")
                    if self.solver.device.type == "cuda":
                        torch.cuda.empty_cache()
                pending = [index for index in pending if index not in self._finished]
        return self._result(time.perf_counter() - started)

    def _keep_unfitted(self) -> list[float]:
        """Keep segments for which no fit has anything to do; returns the powers of all."""
        powers = []
        silent = []
        for index, (start, stop) in enumerate(self.plan):
            samples = self._view.read(start, stop)
            powers.append(float(np.mean(samples**2)))
            shape = (len(self.solver.types), *samples.shape)
            if not powers[-1]:
                silent.append((start, stop))
                self._keep(index, np.zeros(shape, dtype=np.float32))
            elif index not in self._finished and not self.solver.needs_fit(samples, start):
                self._keep(index, np.broadcast_to(samples.astype(np.float32), shape))
        self._done.update(dict.fromkeys(self._finished, self._most))
        for start, stop in np.array(merge(silent)).reshape(-1, 2) / self.recording.rate:
            self._notes.append(f"silence from {start:.2f} to {stop:.2f} s is left as it is")
        if not any(powers):
            self._notes = ["the recording is silent; the output is the input"]
        return powers

    def _keep(self, index: int, estimate: NDArray[np.float32], fit: SegmentFit | None = None) -> None:
        self._store.save(index, FittedSegment(estimate, fit))
        self._finished.add(index)

    def _pretrained(self, powers: Sequence[float]) -> Weights:
        """The weights of the pretrained network, unless an earlier run has left them."""
        weights = self._store.load_weights()
        if weights is None:
            started = time.perf_counter()
            segments = [self._read(self._view, index) for index in with_sound(powers)]
            try:
                weights = self.solver.pretrain(segments, lambda each: self._report(None, self._at_level(each)))
            except RuntimeError as error:
                _refuse_unless_memory(error, 1)
                raise
            self._pretraining_seconds = time.perf_counter() - started
            self._store.save_weights(weights)
        self._done[None] = self._most_pretraining
        return weights

    def _fit(self, indices: Sequence[int], weights: Weights | None) -> None:
        """Fit segments, several at a time, in threads or as one network; reports come from the calling thread."""
        device, joint = self.solver.device, self.solver.joint
        events: queue.SimpleQueue[tuple[int, Iteration] | Future[Sequence[int]]] = queue.SimpleQueue()
        stopped = threading.Event()

        def report(index: int, iteration: Iteration) -> None:
            if stopped.is_set():
                raise _StoppedError
            events.put((index, self._at_level(iteration)))

        def fit(group: Sequence[int]) -> Sequence[int]:
            segments = [self._segment(index, weights) for index in group]
            with _own_stream(device):
                fits = self.solver.fit_segments(segments, [partial(report, index) for index in group])
                for index, (estimate, record) in zip(group, fits, strict=True):
                    self._finish(index, estimate, record)
            return group

        groups = -(-len(indices) // self._workers) if joint else len(indices)
        threads = 1 if joint else self._workers
        # Until it is asked, a new thread does not know torch's number, and its first fit would have other bits.
        with ThreadPoolExecutor(threads, thread_name_prefix=FIT_THREAD, initializer=torch.get_num_threads) as pool:
            try:
                for number in range(groups):
                    pool.submit(fit, indices[number::groups]).add_done_callback(events.put)
                while groups:
                    event = events.get()
                    if isinstance(event, Future):
                        groups -= 1
                        self._done.update(dict.fromkeys(event.result(), self._most))
                    else:
                        self._report(*event)
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)

    def _segment(self, index: int, weights: Weights | None) -> Segment:
        references = [self._read(self._view.of(each), index) for each in self.references]
        samples = self._read(self._view, index)
        return Segment(samples, *self.plan[index], weights, np.stack(references) if references else None)

    def _finish(self, index: int, estimate: Tensor, record: SegmentFit) -> None:
        """Keep an estimate ``[K, C, N]`` at the recording's rate, and its record at the recording's level."""
        start, stop = self.plan[index]
        flat = estimate.double().cpu().flatten(0, 1).numpy()
        restored = resample(flat, self.solver.rate, self.recording.rate)[:, : stop - start]
        record = replace(
            record,
            start=start,
            stop=stop,
            power=record.power / self._view.gain**2,
            noise_std=record.noise_std and record.noise_std / self._view.gain,
            noise=tuple(tuple(power / self._view.gain**2 for power in band) for band in record.noise),
            iterations=tuple(map(self._at_level, record.iterations)),
        )
        self._keep(index, restored.astype(np.float32).reshape(*estimate.shape[:2], -1), record)

    def _read(self, recording: Recording, index: int) -> Samples:
        """A segment ``[C, n]`` at the working rate."""
        with self._reading:
            samples = recording.read(*self.plan[index])
        return resample(samples, recording.rate, self.solver.rate)

    def _at_level(self, iteration: Iteration) -> Iteration:
        """An iteration with its residual at the level of the recording."""
        return replace(iteration, residual=iteration.residual / self._view.gain)

    def _report(self, index: int | None, iteration: Iteration) -> None:
        """Tell of an iteration of a segment, or of the pretraining where it is None."""
        if index is None:
            self._pretraining.append(iteration)
        if self.on_step is None:
            return
        self._done[index] = iteration.iteration
        # Spectrograms are fitted, people think in samples: white noise of level 1 has this power in a bin.
        level = iteration.residual * self.solver.stft.white_gain**-0.5
        total = self._most_pretraining + self._most * len(self.plan)
        self.on_step(Progress(iteration, index, len(self.plan), sum(self._done.values()), total, level))

    def _load(self, index: int) -> FittedSegment:
        """A finished segment."""
        segment = self._store.load(index)
        if segment is None:
            raise OutputError("a finished segment cannot be read back; start again")
        return segment

    def _result(self, seconds: float) -> Result:
        solver, recording = self.solver, self.recording
        fits = tuple(fit for index in range(len(self.plan)) if (fit := self._load(index).fit))
        noise = [fit.noise_std for fit in fits if fit.noise_std is not None]
        noise_std = float(np.sqrt(np.mean(np.square(noise)))) if noise else None
        input_snr_db = None
        if noise_std:
            # No sound at all counts as -60 dB.
            ratio = float(np.mean([fit.power for fit in fits])) / noise_std**2 - 1
            input_snr_db = 10 * float(np.log10(max(ratio, 1e-6)))
        inconsistent = [fit.inconsistent for fit in fits if fit.inconsistent is not None]
        for fit in fits:
            start, stop = fit.start / recording.rate, fit.stop / recording.rate
            where = "" if len(self.plan) == 1 else f"from {start:.2f} to {stop:.2f} s "
            self._notes += [f"{where}{note}" for note in fit.notes]
        joined = Joined(self.plan, solver.types, self._view.channels, lambda index: self._load(index).estimate)
        shape = (recording.rate, recording.channels, recording.length, recording.subtype, recording.format)
        estimates = Estimates(joined, self._view, solver.finalise, solver.types, *shape)
        return Result(
            estimates=estimates,
            settings=solver.settings,
            device=solver.device,
            dtype=solver.dtype,
            parallel=self._workers,
            stft=solver.stft,
            rate=solver.rate,
            receptive_field=receptive_field(solver.settings, solver.stft, solver.rate),
            segments=fits,
            pretraining=tuple(self._pretraining),
            pretraining_seconds=self._pretraining_seconds,
            noise_std=noise_std,
            input_snr_db=input_snr_db,
            inconsistent=float(np.mean(inconsistent)) if inconsistent else None,
            seconds=seconds,
            notes=tuple(self._notes),
        )


def with_sound(powers: Sequence[float]) -> list[int]:
    """Indices of the loudest segments, without those that may hold nothing but noise."""
    heard = sorted((index for index, power in enumerate(powers) if power), key=lambda index: (-powers[index], index))
    loudest, quietest = powers[heard[0]], powers[heard[-1]]
    least = min(quietest + _SOUND_FRACTION * (loudest - quietest), loudest / 2)
    return sorted(index for index in heard[:PRETRAINED_SEGMENTS] if powers[index] >= least)


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
        raise DeviceError("out of memory; use a shorter --segment or a smaller --base-channels") from error
