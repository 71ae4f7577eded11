"""The command line. It checks, calls the Python API, and writes; it contains no signal processing."""

from __future__ import annotations

import os
import sys
import threading
from inspect import getdoc
from operator import methodcaller

import typer

import dapcli
from dapcli.cli.command import Command, add_command, declare
from dapcli.cli.evaluate import Evaluate, further_options
from dapcli.cli.tables import Doctor, Priors, Score
from dapcli.cli.task import add_tasks
from dapcli.errors import DapError, InterruptedRunError, SettingsError

COMMANDS: dict[str, type[Command]] = {"evaluate": Evaluate, "score": Score, "priors": Priors, "doctor": Doctor}


def make_app() -> typer.Typer:
    """The command line: a command for every task, and the others."""
    app = typer.Typer(
        name="dap",
        help="Restore one damaged recording with no training data.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        # A command is made of its options, and run.
        result_callback=methodcaller("run"),
    )
    app.callback()(_root)
    add_tasks(app)
    for name, command in COMMANDS.items():
        # Only evaluate itself needs its options that import numpy.
        more = further_options() if name == "evaluate" and name in sys.argv else []
        add_command(app, name, command, getdoc(command) or "", [*declare(command), *more])
    return app


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
    # Before torch loads its OpenMP: threads that wait for each other by spinning make a fit ten times slower as soon as
    # another program wants the same cores, and gain nothing where none does (docs/performance.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # The same for the threads of numpy's linear algebra: 2 to this power cycles.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
    debug = "--debug" in sys.argv
    try:
        code = make_app()(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = InterruptedRunError.exit_code
    except typer.Exit as exit_:
        code = exit_.exit_code
    except DapError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except Exception as error:
        # Typer and click, whichever this release is built on, raise usage errors that can format themselves.
        if hasattr(error, "format_message"):
            message = error.format_message().rstrip(".\n")
            if not message:  # no command at all: the help was shown
                sys.exit(SettingsError.exit_code)
            path = getattr(getattr(error, "ctx", None), "command_path", "dap")
            _fail(f"{message}. See {path} --help.", SettingsError.exit_code)
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error}; add --debug for details and report it", 1)
    if code == InterruptedRunError.exit_code:  # recent releases of Typer turn KeyboardInterrupt into this
        _fail("interrupted; nothing was written", code)
    sys.exit(code)


def _fail(message: str, code: int) -> None:
    print(f"dap: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201
    run = sys.modules.get("dapcli.pipeline.run")
    fitting = run and any(thread.name.startswith(run.FIT_THREAD) for thread in threading.enumerate())
    if fitting and code == InterruptedRunError.exit_code:
        os._exit(code)  # a second Ctrl-C has cut short the wait for a thread, without which torch would abort
    sys.exit(code)
