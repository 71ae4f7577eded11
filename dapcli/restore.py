"""Restoration of whole recordings: the Python API that the command line is thin over."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dapcli import noise
from dapcli.audio import Audio, Recording, Samples, full_scale_gain, resample
from dapcli.engine import Engine, SegmentFit, Weights, choose_rule
from dapcli.errors import DeviceError, InputError, OutputError, SettingsError
from dapcli.fitting import NEEDS_REFERENCE, STOPPING_RULES, Step, choose_dtype, find_device
from dapcli.observations import ESTIMATORS
from dapcli.postfilter import POST_FILTERS
from dapcli.priors import DEFAULT_DILATION, PRIORS, prior_layout
from dapcli.segments import Joined, plan_segments
from dapcli.settings import SEGMENT_OVERLAP, Settings
from dapcli.spectral import STFT
from dapcli.store import FittedSegment, MemoryStore, Store

#: What the names of threads begin with that fit segments.
FIT_THREAD = "dap-fit"

# Segments that the network learns from, the loudest ones, before it is refined on each.
_LEARNED_SEGMENTS = 8
# Of the loudest segment's power above the quietest's; below that a segment may hold nothing but noise.
_SOUND_SHARE = 0.1
# Cores that one fit keeps busy; further ones serve a second segment.
_CORES_PER_FIT = 4
_MAX_PARALLEL = 4
# Samples of a recording that are looked at together.
_BLOCK = 1 << 16


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


class Restored:
    """A restored recording, read block by block from its finished segments and scaled by ``gain``."""

    def __init__(self, joined: Joined, source: Recording, *, subtype: str, container: str, gain: float = 1.0) -> None:
        self.rate, self.channels, self.length = source.rate, source.channels, source.length
        self.subtype, self.format, self.gain = subtype, container, gain
        self._joined = joined
        self._source = source

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``[C, stop - start]``."""
        return self._joined.read(start, stop) * self.gain

    def blocks(self) -> Iterable[Samples]:
        """All samples, in blocks ``[C, n]``."""
        for start in range(0, self.length, _BLOCK):
            yield self.read(start, min(start + _BLOCK, self.length))

    def as_file(self, container: str, subtype: str) -> Restored:
        """The same for another format and subtype, scaled down if its peaks would not fit in there."""
        peak = max(float(np.abs(block).max()) for block in self.blocks()) / self.gain
        gain = full_scale_gain(peak, subtype)
        return Restored(self._joined, self._source, subtype=subtype, container=container, gain=gain)


@dataclass(frozen=True)
class Result:
    """A restored recording and how it came about.

    ``restored`` has the input's rate, channels and length. ``noise_std`` is the estimated standard deviation of the
    noise with full scale at 1, ``input_snr_db`` the recording's estimated SNR (None where nothing was fitted).
    ``rate`` is the working rate in Hz, ``receptive_field`` is in (s, Hz), and ``learning`` holds the steps before the
    segments' own, which an earlier run may have taken.
    """

    restored: Restored
    settings: Settings
    device: torch.device
    dtype: torch.dtype
    parallel: int
    stft: STFT
    rate: int
    receptive_field: tuple[float, float]
    segments: tuple[SegmentFit, ...]
    learning: tuple[Step, ...]
    learning_seconds: float
    noise_std: float | None
    input_snr_db: float | None
    seconds: float
    notes: tuple[str, ...]

    @property
    def audio(self) -> Audio:
        """The restored recording in memory."""
        source = self.restored
        return Audio(source.read(0, source.length), source.rate, source.subtype, source.format)


def denoise(
    recording: Recording,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    parallel: int | None = None,
    graph: bool = False,
    noise_profile: tuple[float, float] | None = None,
    reference: Recording | None = None,
    on_step: Callable[[Progress], None] | None = None,
    store: Store | None = None,
) -> Result:
    """Remove noise from a recording by fitting an untrained network to it.

    A recording longer than ``settings.segment`` is restored in segments. One network learns from the loudest of them
    in turn, on every second frame, and is then refined on each.

    Args:
        recording: The noisy recording, ``[C, N]``, in memory or in a file; its channels are fitted jointly.
        settings: What to do; the ``quality`` preset by default.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        parallel: Segments to fit at the same time; by what the device has room for where it is None.
        graph: Run iterations as CUDA graphs.
        noise_profile: Start and end, in seconds, of a stretch with nothing but noise. Without it the noise spectrum is
            estimated from the recording.
        reference: The clean recording, ``[C, N]``, for the ``oracle`` stopping rule only.
        on_step: Called after every iteration, always from the calling thread.
        store: Keeps finished segments, and may hold some from an earlier run; in memory by default.

    Raises:
        SettingsError: A setting is unknown, or does not go with the others.
        InputError: The recording, the noise profile or the reference cannot be used.
        DeviceError: The device is not there, or its memory does not suffice.
    """
    settings = settings or Settings()
    where, dtype = check_settings(settings, device, parallel=parallel, graph=graph)
    if recording.length < 2:
        raise InputError("the recording has one sample only; there is nothing to fit to")
    if settings.stop == "oracle" and reference is None:
        raise SettingsError(NEEDS_REFERENCE)  # before the network learns
    if reference is not None and (reference.channels, reference.length) != (recording.channels, recording.length):
        raise InputError(
            f"the reference has shape {(reference.channels, reference.length)}, "
            f"the recording {(recording.channels, recording.length)}"
        )
    started = time.perf_counter()
    rate = settings.rate or recording.rate
    stft = STFT.for_rate(rate, settings.window, settings.hop)
    profile = _profile(stft, recording, rate, noise_profile)
    engine = Engine(settings, stft, rate, where, dtype, profile, graph)
    task = _Task(engine, recording, reference, MemoryStore() if store is None else store, on_step)
    workers = choose_parallel(where) if parallel is None else parallel
    task.run(workers)

    fits = tuple(fit for index in range(len(task.plan)) if (fit := task.load(index).fit))
    layout = prior_layout(settings.prior, width=settings.width, dilation=settings.dilation)
    noise_std = float(np.sqrt(np.mean([fit.noise_std**2 for fit in fits]))) if fits else None
    joined = Joined(task.plan, recording.channels, lambda index: task.load(index).estimate)
    return Result(
        restored=Restored(joined, recording, subtype=recording.subtype, container=recording.format),
        settings=settings,
        device=where,
        dtype=dtype,
        parallel=task.workers,
        stft=stft,
        rate=rate,
        receptive_field=(layout.receptive_field() * stft.hop / rate, layout.receptive_field() * rate / stft.n_fft),
        segments=fits,
        learning=tuple(task.learning),
        learning_seconds=task.learning_seconds,
        noise_std=noise_std,
        input_snr_db=None if noise_std is None else _snr_db(float(np.mean([fit.power for fit in fits])), noise_std**2),
        seconds=time.perf_counter() - started,
        notes=tuple(task.notes),
    )


def check_settings(
    settings: Settings, device: str, *, parallel: int | None = None, graph: bool = False
) -> tuple[torch.device, torch.dtype]:
    """Check what a restoration would only find out on its way, and return the device and the type to compute in.

    Raises:
        SettingsError: A name is unknown or an option has no effect here.
        DeviceError: The device is not there.
    """
    _look_up(PRIORS, settings.prior, "prior")
    _look_up(ESTIMATORS, settings.estimator, "estimator")
    _look_up(POST_FILTERS, settings.post_filter, "post-filter")
    if settings.stop != "auto":
        _look_up(STOPPING_RULES, settings.stop, "stopping rule", "auto")
    if settings.prior != "dilated" and settings.dilation != DEFAULT_DILATION:
        raise SettingsError("--dilation belongs to --prior dilated; the other priors have their own")
    if parallel is not None and parallel < 1:
        raise SettingsError("--parallel must be at least 1")
    where = find_device(device)
    if graph and where.type != "cuda":
        raise SettingsError(f"--cuda-graph needs a CUDA device, and {where} is none")
    return where, choose_dtype(settings.precision, where)


def choose_parallel(device: torch.device) -> int:
    """How many segments to fit at the same time: where one leaves cores idle, or a GPU."""
    if device.type == "cuda":
        return _MAX_PARALLEL
    return 1 if device.type == "mps" else min(max(torch.get_num_threads() // _CORES_PER_FIT, 1), _MAX_PARALLEL)


def plan(recording: Recording, settings: Settings) -> list[tuple[int, int]]:
    """Start and end, in samples of the recording, of the segments that are fitted one by one."""
    longest, overlap = (round(seconds * recording.rate) for seconds in (settings.segment, SEGMENT_OVERLAP))
    return plan_segments(recording.length, longest, min(overlap, longest // 3))  # at odd rates both are rounded


def count_iterations(settings: Settings) -> tuple[int, int]:
    """Iterations at the most for learning from a recording, and for each of its segments."""
    rule, _ = choose_rule(settings)
    # A rule that may end a fit early has to see all of it.
    if not settings.refinement or not ESTIMATORS[settings.estimator].transfers or STOPPING_RULES[rule].patience:
        return 0, settings.iterations
    return settings.iterations, settings.refinement


class _Task:
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
        self._learning, self._share = count_iterations(engine.settings)
        self._powers = [float(np.mean(recording.read(start, stop) ** 2)) for start, stop in self.plan]
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
        silence = np.zeros((self._recording.channels, stop - start), dtype=np.float32)
        self._store.save(index, FittedSegment(silence, None))
        self._finished.add(index)
        self._iterations[index] = self._share

    def _learned(self) -> Weights:
        """What the network learns from the recording, unless an earlier run has left it."""
        weights = self._store.load_weights()
        if weights is None:
            chosen = _with_sound(self._powers)
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
        self._iterations[None] = self._engine.settings.iterations
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

            samples = self._read(self._recording, index)
            reference = None if self._reference is None else self._read(self._reference, index)
            with _own_stream(device):
                estimate, record = self._engine.fit_segment(
                    samples, weights=weights, reference=reference, report=report
                )
                restored = resample(estimate.double().cpu().numpy(), self._engine.rate, self._recording.rate)
            start, stop = self.plan[index]
            self._store.save(
                index,
                FittedSegment(restored[:, : stop - start].astype(np.float32), replace(record, start=start, stop=stop)),
            )
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
        return torch.from_numpy(resample(samples, recording.rate, self._engine.rate)).float()

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


def _with_sound(powers: Sequence[float]) -> list[int]:
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


def _profile(stft: STFT, recording: Recording, rate: int, stretch: tuple[float, float] | None) -> noise.Spectrum | None:
    """The noise spectrum ``[C, F]`` of a stretch in seconds that holds nothing but noise."""
    if stretch is None:
        return None
    start, stop = stretch
    if not 0 <= start < stop:
        raise SettingsError(f"--noise-profile {start:g}:{stop:g} is not a stretch; give START:END in seconds")
    if stop * recording.rate > recording.length:
        length = recording.length / recording.rate
        raise InputError(f"--noise-profile ends at {stop:g} s, the recording at {length:.3f} s")
    samples = recording.read(round(start * recording.rate), round(stop * recording.rate))
    piece = torch.from_numpy(resample(samples, recording.rate, rate)).float()
    if piece.shape[1] < 2 * stft.n_fft:
        raise InputError(f"--noise-profile must be at least {2 * stft.n_fft / rate:.3f} s long to show a spectrum")
    if not piece.any():
        raise InputError("--noise-profile covers digital silence; choose a stretch where the noise can be heard")
    return noise.profile_spectrum(stft, piece)


def _snr_db(power: float, noise_power: float) -> float:
    """SNR of a recording of this power with noise of that, dB; no sound at all counts as -60 dB."""
    return 10 * float(np.log10(max(power / noise_power - 1, 1e-6)))


def _look_up(registry: Collection[str], name: str, kind: str, *extra: str) -> None:
    if name not in registry:
        raise SettingsError(f"unknown {kind} {name!r}; choose one of {', '.join((*extra, *registry))}")
