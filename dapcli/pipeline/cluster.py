"""The same calls on the machines of a Ray cluster, which plans them, and begins those of lost processes again."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from logging import ERROR
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dapcli
from dapcli.errors import DeviceError, SettingsError
from dapcli.pipeline.workers import GRACE, Workers, count_cores, prepare

#: Of a GPU for a short recording.
SHARE = 0.25
# Calls that wait for a process, and as many as there are cores: Ray asks for more machines where many wait.
_WAITING = 1_000
# A call whose process or machine is lost is begun again so many times.
_RETRIES = 3
# Seconds to wait for an answer of the cluster.
_PATIENCE = 5.0
# Seconds without an answer after which a cluster is gone; after 60 Ray would end this process.
_LOST = 15.0


class UnsharedError(DeviceError):
    """A process does not have the folders or files of this one."""


def unshared(path: Path, reason: str) -> UnsharedError:
    """What to say of a folder or file that this machine cannot use."""
    return UnsharedError(f"{platform.node()}: {path} cannot be used ({reason}); share that folder")


@dataclass(frozen=True)
class Parcel:
    """An item for a process that need not have this one's folders, with the files that it takes."""

    item: Any
    files: Mapping[Path, bytes] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[Path]:
        """A temporary folder in place of the root of all paths; what was the current folder there is so again."""
        with TemporaryDirectory(prefix="dap-") as name:
            root = Path(name).resolve()
            current = root / self.folder.relative_to(self.folder.anchor)
            current.mkdir(parents=True, exist_ok=True)  # it may be the root
            os.chdir(current)
            try:
                for path, content in self.files.items():
                    place = root / path.relative_to(path.anchor) if path.is_absolute() else path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
                yield root
            finally:
                os.chdir(root.parent)


@contextlib.contextmanager
def join_cluster(address: str, jobs: int | None, gpus: Callable[[Any], float]) -> Iterator[Workers]:
    """The processes of a Ray cluster, for as long as the context lasts.

    Its machines have the same folders as this one, or items are parcels.

    Args:
        address: That of a cluster, ``auto`` for the one that this machine is in, or ``local`` for one that is started.
        jobs: How many calls to run at the same time; without it, as many as there are cores.
        gpus: The share of a GPU that a call for an item takes, where the cluster has any.

    Raises:
        SettingsError: Ray is not installed.
        DeviceError: There is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of what runs here nobody is told
    try:
        ray: Any = import_module("ray")  # its types are there only where it is
    except ModuleNotFoundError as error:
        raise SettingsError("--cluster needs Ray; pip install 'dapcli[ray]'") from error
    local: dict[str, Any] = {"num_cpus": jobs or count_cores(), "include_dashboard": False}
    try:
        if ":" in address:  # Ray tries for minutes
            _knock(address)
        terminate = signal.getsignal(signal.SIGTERM)
        with _silence():
            ray.init(address, log_to_driver=False, logging_level=ERROR, **(local if address == "local" else {}))
        signal.signal(signal.SIGTERM, terminate)  # Ray has taken it
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DeviceError(
            f"--cluster {address}: cannot be reached ({reason}); start it with ray start, and set RAY_AUTH_MODE=token "
            "if it wants a token"
        ) from error
    refs: dict[Future[Any], Any] = {}
    resources = ray.cluster_resources()
    call = ray.remote(_call)

    def submit(function: Callable[[Any], Any], item: Any) -> Future[Any]:
        parcel = isinstance(item, Parcel)
        share = gpus(item.item if parcel else item) if resources.get("GPU") else 0
        remote = call.options(num_cpus=1, num_gpus=share, max_retries=_RETRIES)
        ref = remote.remote(dapcli.__version__, None if parcel else Path.cwd(), function, item)
        ended: Future[Any] = Future()
        refs[ended] = ref
        ref.future().add_done_callback(partial(_settle, refs, ended))
        return ended

    head = address if ":" in address else ray.get_runtime_context().gcs_address
    failures: list[float] = []

    def check() -> None:
        try:
            _knock(head)
            failures.clear()
        except OSError as error:
            failures.append(time.monotonic())
            if failures[-1] - failures[0] > _LOST:
                raise DeviceError(
                    f"--cluster {address}: does not answer any more ({error.strerror}); what is finished is kept: "
                    "start it again, and repeat the command"
                ) from error

    try:
        width = jobs or max(int(resources.get("CPU", 0)), 1)
        yield Workers(submit, width, 0 if jobs else width + _WAITING, check)
    finally:
        for ref in list(refs.values()):
            ray.cancel(ref)
        with contextlib.suppress(Exception):
            ray.wait(list(refs.values()), num_returns=len(refs), timeout=GRACE)
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise ``OSError`` where nobody listens at ``host:port``, or ``ray://host:port``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep from stderr what Ray's own threads write there while they try to connect."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _settle(refs: dict[Future[Any], Any], ended: Future[Any], future: Future[Any]) -> None:
    refs.pop(ended, None)
    error = future.exception()
    if error is not None:
        missing = re.search("No module named '.*?'", str(error))
        lost = (
            f"its process was lost, {_RETRIES + 1} times ({type(error).__name__}); for lack of memory use fewer --jobs"
        )
        lacks = missing and f"a machine of the cluster lacks a package ({missing[0]}); install dapcli on all of them"
        ended.set_result(DeviceError(lacks or lost))
        return
    result, raised = future.result()
    if raised is None:
        ended.set_result(result)
    else:
        ended.set_exception(raised)


def _call(version: str, folder: Path | None, function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    """What a function returns, or what it raises, in a process that has the same current folder, if there is one."""
    if version != dapcli.__version__:
        return DeviceError(f"{platform.node()}: has dapcli {dapcli.__version__}, not {version}; install that"), None
    try:
        if folder is not None:
            os.chdir(folder)
    except OSError as error:
        return unshared(Path(error.filename), str(error.strerror)), None
    prepare()
    try:
        return function(item), None
    except Exception as error:
        return None, error
