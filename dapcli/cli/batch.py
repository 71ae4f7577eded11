"""``dap batch``: a task for many recordings, several at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, partial
from inspect import getdoc
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_origin

import typer

from dapcli.cli.command import (
    ACCEPT_TRUNCATED,
    CLUSTER,
    OUTPUT_PANEL,
    REQUIRED,
    RunCommand,
    add_command,
    argument,
    make_command,
    own,
    prose,
)
from dapcli.cli.task import TaskCommand, options_of, task_command
from dapcli.errors import (
    DapError,
    DeviceError,
    InputError,
    InterruptedRunError,
    OutputError,
    PartialError,
    SettingsError,
)
from dapcli.settings import PAPER_RATE, RUN_PANEL, option
from dapcli.tasks import TASKS, load

if TYPE_CHECKING:
    from dapcli.audio.listing import Listed
    from dapcli.pipeline.cluster import Parcel
    from dapcli.pipeline.workers import Progress
    from dapcli.report.batch import Line
    from dapcli.report.record import Record

# The column of a manifest that says where a result goes.
_OUTPUT = "output"
# Options of a task that a manifest has no column for.
_COMMON = {*(each.name for each in fields(RunCommand)), *(each.name for each in fields(TaskCommand)), "dry_run"}
_COMMON -= {"preset", "reference"}
# Bytes of a recording that may have a part of a GPU: about a minute of mono at 16 kHz.
_SHORT = 2_000_000
# Bytes of what is read for a recording that may be sent to a machine without its folder.
_SENT = 64_000_000
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Batch(RunCommand):
    """Restore or separate many recordings, several at a time.

    Results have the folders and names of IN below DIR. What is there already, by the same settings, is skipped, so that
    an interrupted batch goes on when the command is repeated; a file that fails stops no other. batch.json in DIR says
    what became of each.
    """

    task: ClassVar[str]

    inputs: tuple[Path, ...] = argument(
        REQUIRED,
        "Files, folders, quoted patterns, or CSVs with a path per line and options by column.",
        metavar="IN...",
    )
    output_dir: Path = own(REQUIRED, "Folder for all results, with the folders and names of IN.", metavar="DIR")
    suffix: str = own("", "Put this after every name, before the extension.", metavar="TEXT")
    extension: str | None = own(
        None, "Extension of the files, which is their format.", flag="--format", metavar="EXTENSION", shown="IN's"
    )
    reference: tuple[Path, ...] = option(
        (), "Folder of clean recordings with the names of IN, to compute metrics.", panel=OUTPUT_PANEL, metavar="FOLDER"
    )
    report: bool = option(False, "Also write an HTML page beside every result.", panel=OUTPUT_PANEL)
    jobs: int | None = option(None, "Recordings at the same time; one a core without it.", panel=RUN_PANEL, least=1)
    cluster: str | None = option(None, CLUSTER, panel=RUN_PANEL, metavar="ADDRESS|auto|local")
    parallel: int | None = option(None, "Segments of a recording at the same time.", panel=RUN_PANEL, least=1)
    accept_truncated: bool = option(False, ACCEPT_TRUNCATED, panel=RUN_PANEL)
    overwrite: bool = option(False, "Do all again, and replace files of others, too.", panel=OUTPUT_PANEL)
    as_json: bool = option(False, "Print batch.json on stdout, nothing else.", panel=OUTPUT_PANEL, flag="--json")

    def run(self) -> None:
        """Restore all recordings, and write what became of each."""
        from dapcli.audio.files import claim, output_folder, write_files
        from dapcli.report.batch import FILE, Summary
        from dapcli.report.console import items_progress, make_console, print_batch

        started = time.monotonic()
        console, file = make_console(), self.output_dir / FILE
        listed = self._listed()
        lines: dict[Path, Line] = {}
        with output_folder(self.output_dir), claim(self.output_dir):
            if file.exists() and not self.overwrite and not Summary.wrote(file):
                raise OutputError(f"{file}: is not of a batch; choose another folder, or add --overwrite")
            try:
                with items_progress(console, self.task, quiet=self.quiet) as tell:
                    self._restore(listed, lines, tell)
            except KeyboardInterrupt:
                finished = sum(line["status"] != "failed" for line in lines.values())
                raise InterruptedRunError(
                    f"interrupted; {finished} of {len(listed)} recordings are finished in {self.output_dir}; "
                    "repeat the command to go on"
                ) from None
            summary = Summary(self.task, [lines[target] for target in listed], time.monotonic() - started)
            text = summary.to_json()
            write_files({file: text.encode()})
        if self.as_json:
            typer.echo(text, nl=False)
        if not self.quiet:
            print_batch(console, summary, file)
        if failed := summary.count("failed"):
            raise PartialError(f"{failed} of {len(listed)} recordings failed; {file} says why; all others are done")

    def _restore(
        self, listed: Mapping[Path, Listed], lines: dict[Path, Line], tell: Callable[[Progress], None]
    ) -> None:
        """Restore what is not done yet, the largest files first, and put into ``lines`` what became of each."""
        from dapcli.pipeline.cluster import Parcel, UnsharedError, join_cluster
        from dapcli.pipeline.workers import Progress, count_cores, start_workers
        from dapcli.report.batch import make_line

        sizes: dict[Path, int] = {}
        for target, each in listed.items():
            command = self._command(target, each)
            record = None if self.overwrite else command.found()
            if record and command.is_done(record):
                lines[target] = make_line(each.path, target, "kept", record)
            else:
                sizes[target] = _size(each.path)
        left = total = sum(sizes.values())
        tell(Progress(len(lines), len(listed), None))
        if not sizes:
            return
        commands = (self._command(target, listed[target]) for target in sorted(sizes, key=lambda each: -sizes[each]))
        jobs = min(self.jobs or count_cores(), len(sizes))
        with join_cluster(self.cluster, self.jobs, _gpus) if self.cluster else start_workers(jobs) as workers:
            references = bool(self.reference) or any(each.values.get("reference") for each in listed.values())
            # Each process here loads what it needs at the same time.
            checked = [Parcel(self._common)] * (1 if self.cluster else workers.width)
            for _, death in workers.map(partial(_check, references), checked):
                if death:
                    raise death
            began = time.monotonic()

            def finish(command: TaskCommand, line: Line | DapError) -> None:
                nonlocal left
                source, target = command.input_path, command.output_path
                lines[target] = (
                    make_line(source, target, "failed", error=str(line)) if isinstance(line, DapError) else line
                )
                left -= sizes[target]
                tell(Progress(len(lines), len(listed), (time.monotonic() - began) * left / (total - left)))

            def parcels() -> Iterator[Parcel]:
                for command, error in unseen:
                    packed = _pack(command, error)
                    if isinstance(packed, Parcel):
                        yield packed
                    else:
                        finish(command, packed)

            unseen = []
            for command, line in workers.map(partial(_restore_one, self.output_dir), commands):
                if isinstance(line, UnsharedError):
                    unseen.append((command, line))
                else:
                    finish(command, line)
            # None waits: their files would fill the memory.
            for parcel, files in replace(workers, waiting=0).map(_restore_parcel, parcels()):
                finish(parcel.item, files if isinstance(files, DapError) else _keep(parcel.item, files))

    def _listed(self) -> dict[Path, Listed]:
        """What is to be restored, by where it goes.

        Raises:
            InputError: There is nothing in IN.
            SettingsError: A cell of a manifest is not of its form.
            OutputError: Two recordings would go to one place.
        """
        from dapcli.audio.listing import list_files

        listed: dict[Path, Listed] = {}
        names: dict[str, Listed] = {}
        for each in list_files(self.inputs, outside=self.output_dir):
            target = self._target(each)
            other = names.setdefault(os.path.normcase(target), each)
            if other is not each and (other.values != each.values or not other.path.samefile(each.path)):
                raise OutputError(
                    f"{other.path} and {each.path} would both become {target}; rename one, or give its line of a "
                    f"manifest a column {_OUTPUT}"
                )
            _ = self._command(target, each).paths  # raises what is wrong with the options
            listed.setdefault(target, each)
        return listed

    def _target(self, each: Listed) -> Path:
        """Where a recording goes: OUT, or OUTDIR."""
        if given := each.values.get(_OUTPUT):
            if Path(given).is_absolute() or ".." in Path(given).parts:
                raise InputError(f"{each.line}: {_OUTPUT} {given} is not below --output-dir; name a path in there")
            return self.output_dir / given
        extension = each.place.suffix if self.extension is None else f".{self.extension.removeprefix('.')}"
        name = f"{each.place.stem}{self.suffix}{'' if TASKS[self.task].options.folder else extension}"
        return self.output_dir / each.place.parent / name

    @cached_property
    def _common(self) -> TaskCommand:
        """What the commands of all recordings have in common."""
        names = {each.name for each in fields(task_command(self.task))} - {"report", "reference"}
        common = {each.name: getattr(self, each.name) for each in fields(self) if each.name in names}
        run = {"quiet": True, "as_json": False, "resume": not self.overwrite}
        return task_command(self.task)(**{"input_path": Path(), "output_path": Path(), **common, **run})

    def _command(self, target: Path, each: Listed) -> TaskCommand:
        """The command that restores one recording."""
        page = (
            target / "separation.html" if TASKS[self.task].options.folder else target.with_name(f"{target.name}.html")
        )
        paths = {
            "input_path": each.path,
            "output_path": target,
            "reference": tuple(folder / each.place for folder in self.reference),
            "report": page if self.report else None,
        }
        return replace(self._common, **{**paths, **_parse(self.task, each)})


def _gpus(command: TaskCommand) -> float:
    """The share of a GPU for a recording: all of one where several segments are fitted at the same time."""
    from dapcli.pipeline.cluster import SHARE

    if command.device == "cpu":
        return 0.0
    return 1.0 if _size(command.input_path) > _SHORT else SHARE


def _size(path: Path) -> int:
    """Bytes of a file, at least 1, also where it has gone since it was listed."""
    with suppress(OSError):
        return path.stat().st_size + 1
    return 1


def _check(references: bool, parcel: Parcel) -> None:
    """Raise what is wrong with the settings of all recordings, and with the device."""
    command: TaskCommand = parcel.item
    load("dapcli.tasks.check:check")(
        TASKS[command.task],
        command.settings,
        PAPER_RATE,
        device=command.device,
        parallel=command.parallel,
        references=references,
    )


def _restore_one(folder: Path, command: TaskCommand) -> Line | DapError:
    """Restore a recording, and return what became of it, unless that is done by now.

    A machine without the recording, or the folder of all results, returns an ``UnsharedError``.
    """
    from dapcli.audio.files import is_claimed
    from dapcli.pipeline.cluster import unshared

    if not is_claimed(folder):
        return unshared(folder, "is not there")
    try:
        lost = next((path for path in command.inputs if not path.exists()), None)
    except (DapError, OSError):  # an option is a file's name only where that is
        lost = command.input_path
    if lost:
        return unshared(lost, "is not there")

    def restore() -> Record:
        record = command.found()
        if record is not None and not command.overwrite and command.is_done(record):
            return record
        return _replacing(command).run(lambda: None)

    return _attempt(command, restore)


def _attempt(command: TaskCommand, restore: Callable[[], Record]) -> Line:
    """What becomes of a recording by its record, or by what is raised."""
    from dapcli.report.batch import make_line

    line = partial(make_line, command.input_path, command.output_path)
    try:
        return line("done", restore())
    except DapError as error:
        return line("failed", error=str(error))
    except Exception as error:
        return line("failed", error=f"{type(error).__name__}: {error}")


def _replacing(command: TaskCommand) -> TaskCommand:
    """The command, to make again what another run has made of the same recording; its folder is there then."""
    record = command.found()
    ours = record is not None and Path(record["input"]).name == command.input_path.name
    command.output_path.parent.mkdir(parents=True, exist_ok=True)
    return replace(command, overwrite=command.overwrite or ours)


def _pack(command: TaskCommand, error: DapError) -> Parcel | DapError:
    """A recording with all that is read for it, to be restored elsewhere; or what is wrong with it, or its size."""
    from dapcli.pipeline.cluster import Parcel

    inputs, here = command.inputs, Path.cwd()
    # Nothing can be put above the root.
    above = any(path.parts.count("..") >= len(here.parts) for path in (*inputs, command.output_path))
    if above or sum(map(_size, inputs)) > _SENT:
        return DeviceError(f"{error}, for files of more than {_SENT / 1e6:.0f} MB are not sent")
    try:
        with _replacing(command).claimed():  # before hours of work
            return Parcel(command, {path: path.read_bytes() for path in inputs}, here)
    except DapError as refused:
        return refused
    except OSError as refused:
        return InputError(f"{refused.filename}: cannot be used ({refused.strerror}); check it, and repeat")


def _restore_parcel(parcel: Parcel) -> Mapping[Path, bytes] | DapError:
    """All that is written for a recording, which is restored in a folder of its own, or why there is nothing."""
    names, command = set(map(str, parcel.files)), parcel.item

    def place(root: Path, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(place(root, each) for each in value)
        if (isinstance(value, Path) or value in names) and (path := Path(value)).is_absolute():
            return type(value)(root / path.relative_to(path.anchor))
        return value

    try:
        with parcel.unpacked() as root:
            placed = replace(
                command, **{each.name: place(root, getattr(command, each.name)) for each in fields(command)}
            )
            line = _attempt(placed, lambda: _replacing(placed).run(lambda: None))
            if error := line["error"]:
                return DapError(error.replace(str(root), ""))
            audio, files = placed.paths.outputs.values(), {}
            for _, path in placed.written:
                content = path.read_bytes()
                own = Path(str(path).removeprefix(str(root)))
                files[own] = content if path in audio else content.replace(os.fsencode(root), b"")
            return files
    except OSError as refused:
        return DeviceError(f"a machine cannot use {refused.filename} ({refused.strerror}); make room there, and repeat")


def _keep(command: TaskCommand, files: Mapping[Path, bytes]) -> Line:
    """Write what was restored elsewhere, and return what became of the recording."""
    from dapcli.audio.files import write_files

    def write() -> Record:
        with _replacing(command).claimed():
            write_files(files)
        record: Record = json.loads(files[command.paths.record])
        return record

    return _attempt(command, write)


def _parse(task: str, each: Listed) -> dict[str, Any]:
    """The values of options that a line of a manifest has, by their names.

    Raises:
        SettingsError: A column is no option, or a cell is not of its form.
    """
    columns, values = _columns(task), {}
    for column, text in each.values.items():
        if column == _OUTPUT or not text:
            continue
        if column not in columns:
            known = ", ".join(["path", _OUTPUT, *columns])
            raise SettingsError(f"{each.line}: no option {column!r} of {task}; columns are {known}")
        name, kind, metavar = columns[column]
        if "|FILE" in (metavar or "") and (each.folder / text).is_file():  # it may also be something else
            text = str(each.folder / text)
        try:
            values[name] = _value(kind, text, each.folder)
        except (ValueError, KeyError):
            raise SettingsError(f"{each.line}: {column} {text!r} cannot be used; see dap batch {task} --help") from None
    return values


def _value(kind: Any, text: str, folder: Path) -> Any:
    """A value of some type, with semicolons between several; paths are relative to a folder."""
    if get_origin(kind) is list:
        return tuple(_value(get_args(kind)[0], part.strip(), folder) for part in text.split(";"))
    if get_args(kind):
        return _value(next(each for each in get_args(kind) if each is not NoneType), text, folder)
    if kind is bool:
        return _BOOLEANS[text.casefold()]
    return folder / text if kind is Path else kind(text)


@cache
def _columns(task: str) -> dict[str, tuple[str, Any, str | None]]:
    """The options that a manifest can have, by their columns: name, type, and what the help shows for a value."""
    found = {}
    for name, annotated, declared in options_of(task, TaskCommand):
        if name not in _COMMON:
            flag = declared.metadata["flag"] or name
            column = flag.split("/")[0].removeprefix("--").replace("_", "-")
            found[column] = (name, get_args(annotated)[0], declared.metadata["metavar"])
    return found


def add_batch(app: typer.Typer) -> None:
    """Register the command, which has one for every task."""
    batch = typer.Typer(help=prose(getdoc(Batch) or ""), no_args_is_help=True)
    text = (getdoc(Batch) or "").partition("\n")[2]
    for name in TASKS:
        declared = {each[0]: each for each in options_of(name, Batch) if each[0] != "dry_run"}
        command = make_command(Batch, list(declared.values()), task=name)
        summary = f"{name.capitalize()} many recordings, several at a time."
        examples = (
            "in/ --output-dir out",
            "'in/*.wav' --output-dir out --report --jobs 2",
            "list.csv --output-dir out",
        )
        add_command(batch, name, command, f"{summary}\n{text}", examples, parent="dap batch")
    app.add_typer(batch, name="batch")
