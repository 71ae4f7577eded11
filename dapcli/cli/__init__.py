"""The command line. It checks, calls the Python API, and writes; it contains no signal processing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from inspect import getdoc
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, cast

import typer

import dapcli
from dapcli.cli.batch import add_batch
from dapcli.cli.command import INTERRUPTIONS, Command, add_command, declare, make_command
from dapcli.cli.evaluate import Evaluate, further_options
from dapcli.cli.tables import Doctor, Priors, Score
from dapcli.cli.task import add_tasks
from dapcli.errors import DapError, InputError, InterruptedRunError, OutputError, SettingsError, not_installed
from dapcli.pipeline.workers import postpone

# mallopt's number for how many pools of free memory threads have.
_M_ARENA_MAX = -8

COMMANDS: dict[str, type[Command]] = {"evaluate": Evaluate, "score": Score, "priors": Priors, "doctor": Doctor}


def make_app() -> typer.Typer:
    """The command line: a command for every task, and the others."""
    app = typer.Typer(
        name="dap",
        help="Restore one damaged recording with no training data.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        # A command is made of its options, and run.
        result_callback=_run,
    )
    app.callback()(_root)
    add_tasks(app)
    add_batch(app)
    for name, command in COMMANDS.items():
        # Only evaluate itself needs its options that import numpy, also when a shell asks to complete it.
        words = [
            *sys.argv,
            *(each for key in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS") for each in os.environ.get(key, "").split()),
        ]
        more = further_options() if name == "evaluate" and name in words else []
        made = make_command(command, [*declare(command), *more])
        add_command(app, name, made, getdoc(command) or "", command.examples)
    return app


def _run(command: Command) -> None:
    command.run()


def _print_version(value: bool) -> None:
    if value:
        print(f"dap {dapcli.__version__}")  # noqa: T201 - the answer to a question, on stdout
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, expose_value=False, help="Show the version."
    ),
) -> None:
    del version  # its callback has answered


def main() -> None:
    """Entry point of ``dap``: every error is one line on stderr and an exit code, a traceback only with --debug."""
    _prepare_process()
    debug = "--debug" in sys.argv
    stdout = redirect_stdout(cast(TextIO, _Stdout(sys.stdout))) if sys.stdout else nullcontext()
    with _interruptions() as signals, stdout:
        try:
            _check_folder()
            code = make_app()(standalone_mode=False)
            if sys.stdout:
                sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            code = InterruptedRunError.exit_code
        except BrokenPipeError:  # nobody reads on
            code = 1
        except typer.Exit as exit_:
            code = exit_.exit_code
        except DapError as error:
            if debug:
                raise
            code = error.exit_code
            if isinstance(error, InterruptedRunError) and signals:
                code = 128 + signals[-1]
            _fail(str(error), code)
        except ModuleNotFoundError as error:
            if debug:
                raise
            _fail(not_installed(error), 1)
        except Exception as error:
            # Typer and click, whichever this release is built on, raise usage errors that can format themselves.
            if hasattr(error, "format_message"):
                message = error.format_message().rstrip(".\n")
                if not message:  # no command at all: the help was shown
                    sys.exit(SettingsError.exit_code)
                path = getattr(getattr(error, "ctx", None), "command_path", "dap")
                files = [each for each in sys.argv if each.startswith("-") and Path(each).suffix]
                hint = f" A file of this name is ./{files[0]}." if files and "No such option" in message else ""
                _fail(f"{message}.{hint} See {path} --help.", SettingsError.exit_code)
            if debug:
                raise
            _fail(f"internal error: {type(error).__name__}: {error}; add --debug for details and report it", 1)
        if code == InterruptedRunError.exit_code:  # recent releases of Typer turn KeyboardInterrupt into this
            _fail("interrupted; nothing was written", 128 + signals[-1] if signals else code)
        sys.exit(code)


def _prepare_process() -> None:
    """Settle how numpy and torch use the machine, before they are imported."""
    # Threads of linear algebra that wait for each other by spinning slow down all programs: 2 to this power cycles.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
    # Threads share one pool of free memory: with one each, fits side by side hold a third more (docs/performance.md).
    with suppress(AttributeError, OSError, TypeError):  # it is the GNU C library's
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _check_folder() -> None:
    """Raise ``InputError`` where the current folder was deleted: libraries that torch loads would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the current folder is gone ({error.strerror}); change to one that is there") from error


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Let each signal that asks a program to end raise KeyboardInterrupt; yields the list of those that came."""
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not postpone(number, frame, main):
            came.append(number)
            raise KeyboardInterrupt

    before = {}
    for number in INTERRUPTIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            before[number] = signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stdout:
    """Stdout that tells of its errors by :class:`OutputError`, from the first one on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write some text."""
        return int(self._call(self._stream.write, text))

    def flush(self) -> None:
        """Write what is buffered."""
        self._call(self._stream.flush)

    def _call(self, method: Callable[..., Any], *arguments: str) -> Any:
        if self._error is None:
            try:
                return method(*arguments)
            except OSError as error:
                self._error = error
                if not isinstance(error, BrokenPipeError):
                    reason = f"stdout: cannot be written ({error.strerror})"
                    self._error = OutputError(f"{reason}; files that this run was to write are complete")
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # or Python tries again at its end
        raise self._error


def _fail(message: str, code: int) -> None:
    print(f"dap: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201
    run = sys.modules.get("dapcli.pipeline.run")
    fitting = run and any(thread.name.startswith(run.FIT_THREAD) for thread in threading.enumerate())
    if fitting and code > 128:
        os._exit(code)  # a second Ctrl-C has cut short the wait for a thread, without which torch would abort
    sys.exit(code)
