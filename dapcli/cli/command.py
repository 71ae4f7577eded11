"""Commands as dataclasses: a field is an option, its metadata the option's help, and ``run`` what the command does.

Typer reads the options of a command from the constructor of such a class, and calls it; ``dap`` then runs the object
that it made. This module imports nothing heavy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from dapcli.settings import check_limits, option

OWN_PANEL = "Options"
OUTPUT_PANEL = "Output"
#: The default of an option that has to be given.
REQUIRED = MISSING
_T = TypeVar("_T")
#: A field as :func:`dataclasses.make_dataclass` takes it: name, type, and default with metadata.
Declaration = tuple[str, Any, Any]


def argument(metavar: str, text: str, default: Any = REQUIRED) -> Any:
    """A field of a command that is an argument, not an option."""
    return field(default=default, metadata={"metavar": metavar, "help": text, "argument": True})


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A command with its options.

    Raises:
        SettingsError: A number is out of range.
    """

    debug: bool = option(False, "Show the traceback of an error.", panel=OUTPUT_PANEL)  # read by the entry point

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.default == ():  # Typer makes lists
                object.__setattr__(self, each.name, tuple(getattr(self, each.name) or ()))
        check_limits(self)

    @abstractmethod
    def run(self) -> None:
        """Do what the command is for."""

    def part(self, kind: type[_T]) -> _T:
        """An object of another dataclass out of the options that are its fields."""
        return kind(**{each.name: getattr(self, each.name) for each in fields(kind) if each.metadata})  # type: ignore[arg-type]


def declare(
    owner: type, changes: Mapping[str, Mapping[str, Any]] | None = None, *, task: str = "", optional: bool = False
) -> list[Declaration]:
    """The fields of a dataclass that are options, with annotations for Typer.

    Args:
        owner: The dataclass.
        changes: What is different in the metadata of some fields, by their names.
        task: The task that must know a field.
        optional: Let all be None where they are not given; the help shows no default then.
    """
    hints = get_type_hints(owner)
    declared = []
    for each in fields(owner):
        tasks = each.metadata.get("tasks")
        if not each.metadata or (tasks and task not in tasks):
            continue
        metadata = {**each.metadata, **(changes or {}).get(each.name, {})}
        kind: Any = hints[each.name]
        if get_origin(kind) is tuple:
            kind = list[get_args(kind)[0]]  # type: ignore[misc]
        default = None if optional else each.default
        declared.append(
            (
                each.name,
                Annotated[kind | None if optional else kind, _parameter(each, metadata, optional)],
                field(default=default, metadata=metadata),
            )
        )
    return declared


def add_command(
    app: typer.Typer,
    name: str,
    command: type[Command],
    text: str,
    declared: Sequence[Declaration] | None = None,
    **attributes: Any,
) -> None:
    """Register a command with its own options, or with these, and with these attributes of its class."""
    made = make_dataclass(
        command.__name__,
        declare(command) if declared is None else declared,
        bases=(command,),
        namespace=attributes,
        frozen=True,
        kw_only=True,
    )
    app.command(name, help=text)(made)


def _parameter(of: Field[Any], metadata: Mapping[str, Any], optional: bool) -> Any:
    """What Typer is told of a field."""
    if "argument" in metadata:
        return typer.Argument(metavar=metadata["metavar"], help=metadata["help"], show_default=False)
    flags = (metadata["flag"] or f"--{of.name.replace('_', '-')}").split()
    return typer.Option(
        *flags,
        help=metadata["help"],
        metavar=metadata["metavar"],
        rich_help_panel=metadata["panel"],
        show_default=metadata["shown"] or (not optional and of.default not in (None, False, (), MISSING)),
    )
