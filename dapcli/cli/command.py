"""Commands as dataclasses: a field is an option, its metadata the option's help, and ``run`` what the command does.

Typer reads the options of a command from the constructor of such a class, and calls it; ``dap`` then runs the object
that it made. This module imports nothing heavy.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from dapcli.settings import RUN_PANEL, check_limits, option
from dapcli.settings import own as own

#: The panel of options that are arguments.
ARGUMENTS = "Arguments"
OUTPUT_PANEL = "Output"
#: The default of an option that has to be given.
REQUIRED = MISSING
#: Help of --accept-truncated.
ACCEPT_TRUNCATED = "Also read files that lack part of their end, as far as they go."
#: Help of --cluster.
CLUSTER = "Run on a Ray cluster: its address, auto for that of this machine, or local to start one here."

argument = partial(option, panel=ARGUMENTS)
#: Signals that ask a program to end: Ctrl-C, kill, and, where it is known, a terminal that is gone.
INTERRUPTIONS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: A field as :func:`dataclasses.make_dataclass` takes it: name, type, and default with metadata.
Declaration = tuple[str, Any, Any]
C = TypeVar("C", bound="Command")


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A command with its options.

    Raises:
        SettingsError: A number is out of range.
    """

    #: What the help shows after the command's name.
    examples: ClassVar[tuple[str, ...]] = ()

    debug: bool = option(False, "Show the traceback of an error.", panel=RUN_PANEL)  # read by the entry point

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.metadata.get("several"):  # Typer makes lists of them
                object.__setattr__(self, each.name, tuple(getattr(self, each.name) or ()))
        check_limits(self)

    @abstractmethod
    def run(self) -> object:
        """Do what the command is for."""


def finish_undisturbed() -> None:
    """Ignore signals from here on: all is written, and only little is left to do."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True, kw_only=True)
class RunCommand(Command):
    """A command that fits."""

    preset: str | None = option(
        None, "Named set of settings: quality, fast, and the task's own.", panel=RUN_PANEL, shown="quality"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel=RUN_PANEL)
    overwrite: bool = option(False, "Replace existing files.", panel=OUTPUT_PANEL)
    as_json: bool = option(False, "Print the JSON record on stdout, nothing else.", panel=OUTPUT_PANEL, flag="--json")
    quiet: bool = option(False, "No progress and no summary, only errors.", panel=OUTPUT_PANEL, flag="--quiet -q")


def declare(
    owner: type, changes: Mapping[str, Mapping[str, Any]] | None = None, *, task: str = "", optional: bool = False
) -> list[Declaration]:
    """The fields of a dataclass that are options, with annotations for Typer.

    Args:
        owner: The dataclass.
        changes: Other metadata for some of its fields, by their names.
        task: The task that must know a field.
        optional: Let all be None where they are not given; the help shows no default then.
    """
    hints = get_type_hints(owner)
    declared = []
    for each in fields(owner):
        if not each.metadata or (each.metadata["tasks"] and task not in each.metadata["tasks"]):
            continue
        metadata = {**each.metadata, **(changes or {}).get(each.name, {})}
        kind, default = hints[each.name], each.default
        if get_origin(kind) is tuple:
            kind = list[get_args(kind)[0]] if ... in get_args(kind) else str  # type: ignore[misc]
            metadata["several"] = not optional
        if optional or default == ():
            kind, default = kind | None, None
        if metadata["panel"] == ARGUMENTS:
            # What cannot be read is no fault of the command line: reading says so.
            shown = typer.Argument(
                metavar=metadata["metavar"], help=metadata["help"], show_default=False, readable=False
            )
        else:
            shown = typer.Option(
                *(metadata["flag"] or f"--{each.name.replace('_', '-')}").split(),
                help=metadata["help"],
                metavar=metadata["metavar"],
                rich_help_panel=metadata["panel"],
                readable=False,
                show_default=metadata["shown"] or default not in (None, False, REQUIRED),
            )
        declared.append((each.name, Annotated[kind, shown], field(default=default, metadata=metadata)))
    return declared


def make_command(command: type[C], declared: Sequence[Declaration], **attributes: Any) -> type[C]:
    """A class of commands with these options, and with these attributes."""
    return make_dataclass(command.__name__, declared, bases=(command,), namespace=attributes, frozen=True, kw_only=True)


def add_command(
    app: typer.Typer, name: str, command: type[Command], text: str, examples: Sequence[str] = (), *, parent: str = "dap"
) -> None:
    """Register a command; its help ends with ``examples`` of what may follow its name."""
    lines = [escape(f"{parent} {name} {each}".rstrip()) for each in examples]
    epilog = "\n".join(["[bold]Examples[/]", *lines]) if lines else None
    app.command(name, help=prose(text), epilog=epilog)(command)


def prose(text: str) -> str:
    """A text whose paragraphs are lines, as the help wants them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
