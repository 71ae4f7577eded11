"""Calls of one function for many items, each in a process of its own beside others, that keep what they have loaded.

This module imports nothing heavy: the processes do, and those that start them need not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from dapcli.errors import DeviceError

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

# A call is repeated once if its process dies: that may have been for the memory that others took.
_TRIES = 2
# Seconds without a result after which one looks whether something is wrong.
_SILENCE = 5.0
#: Seconds in which calls may clear up what they are at before their processes are killed.
GRACE = 10.0


@dataclass(frozen=True)
class Progress:
    """How many of all items are done, and seconds that the others will take as far as one can know."""

    done: int
    total: int
    left: float | None


@dataclass(frozen=True)
class Workers:
    """What calls functions: ``submit`` begins a call, and ``width`` calls run at the same time.

    More are begun before, for so many to be ``waiting``. ``check`` raises what is wrong where no call ends for long.
    """

    submit: Callable[[Callable[[Any], Any], Any], Future[Any]]
    width: int
    waiting: int = 0
    check: Callable[[], None] | None = None

    def map(self, function: Callable[[I], R], items: Iterable[I]) -> Iterator[tuple[I, R | DeviceError]]:
        """Each item with what the function returns for it, as they come; items are taken as they are needed.

        In place of a result there is a ``DeviceError`` where a process died of an item. What a call raises is raised.
        """
        ended: queue.SimpleQueue[tuple[I, Future[R]]] = queue.SimpleQueue()
        running = 0
        rest = iter(items)
        while True:
            for item in rest:
                self.submit(function, item).add_done_callback(partial(_put, ended, item))
                running += 1
                if running == self.width + self.waiting:
                    break
            if not running:
                return
            try:
                item, future = ended.get(timeout=_SILENCE if self.check else None)
            except queue.Empty:
                assert self.check is not None
                self.check()
                continue
            running -= 1
            yield item, future.result()


def _put(ended: queue.SimpleQueue[tuple[I, Future[R]]], item: I, future: Future[R]) -> None:
    ended.put((item, future))


def _call_here(function: Callable[[I], R], item: I) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(function(item))
    return future


#: One call at a time, in this process.
HERE = Workers(_call_here, 1)


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def start_workers(jobs: int) -> Iterator[Workers]:
    """So many processes with one thread each, for as long as the context lasts; one that dies is replaced."""
    slots = queue.SimpleQueue[_Slot]()
    started = [_Slot() for _ in range(jobs)]
    for slot in started:
        slots.put(slot)

    def call(function: Callable[[Any], Any], item: Any) -> Any:
        slot = slots.get()
        try:
            return slot.call(partial(_call, function, item))
        finally:
            slots.put(slot)

    threads = ThreadPoolExecutor(jobs)
    try:
        yield Workers(lambda function, item: threads.submit(call, function, item), jobs, waiting=1)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for slot in started:
            slot.stop()
        processes = multiprocessing.active_children()
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(GRACE)
        finally:
            for process in processes:
                process.kill()


class _Slot:
    """A process with one call at a time, so that one that dies takes no other call with it."""

    def __init__(self) -> None:
        self._stopped = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._pool = ProcessPoolExecutor(1, context, initializer=_begin)
        with _unbroken():
            self._pool.submit(prepare)  # while others are at the first call

    def call(self, function: Callable[[], Any]) -> Any:
        """What a function returns, or a ``DeviceError``."""
        for _ in range(_TRIES):
            with contextlib.suppress(BrokenProcessPool):
                return self._pool.submit(function).result()
            if not self._stopped:
                self._start()
        return DeviceError("its process died, most likely for lack of memory; repeat the command with fewer --jobs")

    def stop(self) -> None:
        """Begin no further calls, and no process in place of this one."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)


# In a process

_calling = _ending = False


def _begin() -> None:
    """Prepare a process: one thread, and it ends with its parent, which also answers Ctrl-C."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def prepare() -> None:
    """Load torch with one thread."""
    import torch

    torch.set_num_threads(1)


def _call(function: Callable[[I], R], item: I) -> R:
    global _calling
    _calling = True
    try:
        return function(item)
    finally:
        _calling = False
        if _ending:
            os._exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    """End the process at once if it is idle, or as soon as a call has cleared up."""
    global _ending
    if not _calling:
        os._exit(1)
    if not postpone(number, frame):
        _ending = True
        raise KeyboardInterrupt


def postpone(number: int, frame: FrameType | None, outermost: Callable[[], None] | None = None) -> bool:
    """Whether a signal has come where nothing must be raised; it will come again a little later then.

    An exception can end within an import that makes another of it, and torch's aborts; destructors, and soundfile's
    callbacks from C, drop it. Frames from ``outermost`` on are not looked at.
    """
    while frame and not (outermost and frame.f_code is outermost.__code__):
        code = frame.f_code
        if "importlib" in code.co_filename or code.co_name.startswith(("vio_", "__del__")):
            threading.Timer(0.05, _signal_again, [number]).start()
            return True
        frame = frame.f_back
    return False


def _signal_again(number: int) -> None:
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:  # a main thread that waits for others wakes up only for its own signals
        signal.pthread_kill(threading.main_thread().ident or 0, number)


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Let signals wait: a process that begins needs all that it is sent."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
