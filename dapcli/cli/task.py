"""The one command behind every task: check its files, pose the problem, call the task's function, write the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import typer

import dapcli
from dapcli.cli.command import (
    ACCEPT_TRUNCATED,
    OUTPUT_PANEL,
    REQUIRED,
    Declaration,
    RunCommand,
    add_command,
    argument,
    declare,
    finish_undisturbed,
    make_command,
)
from dapcli.errors import OutputError, SettingsError
from dapcli.settings import RUN_PANEL, choose_settings, option
from dapcli.tasks import TASKS, load
from dapcli.tasks.options import TaskOptions

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.audio.files import Content
    from dapcli.audio.metadata import Metadata
    from dapcli.pipeline.result import Estimates
    from dapcli.report.record import Record
    from dapcli.settings import Settings
    from dapcli.tasks.problem import Problem

# Of more gaps than this only the first are printed.
_PRINTED = 20
# Bytes on a page for a recording, about: its picture, and its player by the second, up to so many.
_PICTURE, _PLAYER, _PLAYED_S = 200_000, 16_000, 60.0
# What stands for stdin and stdout elsewhere.
_PIPE = Path("-")
# The name of the record, and of the folder of finished segments, where there are several outputs.
_SOURCES = "separation"


@dataclass(frozen=True)
class Files:
    """The files of a run; the recording and its references are open.

    ``outputs`` are recordings of one ``container`` and ``subtype`` with the same ``metadata``, by what people call
    them; ``written`` are all files that are written. ``partial`` is the folder of finished segments. ``notes``, by
    their keys in the record, tell what is wrong in what is read, and what cannot be kept in what is written.
    """

    recording: Recording
    references: Mapping[Path, Recording]
    outputs: Mapping[str, Path]
    container: str
    subtype: str
    metadata: Metadata
    written: Sequence[tuple[str, Path]]
    partial: Path
    notes: Mapping[str, str]

    def check_space(self, longest: float) -> None:
        """Check that all will find room, with finished segments where one is ``longest`` s at the most.

        Raises:
            OutputError: It will not.
        """
        from dapcli.audio.files import check_space
        from dapcli.audio.writing import expected_size

        each = expected_size(self.recording, self.container, self.subtype)
        if self.recording.length > longest * self.recording.rate:
            each += expected_size(self.recording, "", "FLOAT")
        kept = sum(path.stat().st_size for path in self.partial.glob("segment-*"))
        sizes = {self.partial.parent: each * len(self.outputs) - kept}
        if report := dict(self.written).get("report"):
            players = 2 + len(self.outputs) + len(self.references)
            seconds = min(self.recording.length / self.recording.rate, _PLAYED_S)
            page = players * (_PICTURE + round(_PLAYER * seconds))
            sizes[report.parent] = sizes.get(report.parent, 0) + page
        check_space(sizes)

    def write(self, estimates: Estimates, record: str, page: str) -> None:
        """Write the estimates, their record and their page, if there is to be one: all of them or none.

        Raises:
            OutputError: The disk is full, or refuses for another reason.
        """
        from dapcli.audio import write_audio
        from dapcli.audio.files import write_files

        contents: list[Content] = [partial(write_audio, recording=each, metadata=self.metadata) for each in estimates]
        contents += [record.encode(), page.encode()]
        write_files({path: content for (_, path), content in zip(self.written, contents, strict=False)})


class Paths(NamedTuple):
    """Where a run writes: its recordings by what people call them, their record, and its finished segments."""

    outputs: Mapping[str, Path]
    record: Path
    partial: Path


@dataclass(frozen=True, kw_only=True)
class TaskCommand(RunCommand):
    """A task, with the options of every run."""

    task: ClassVar[str]

    input_path: Path = argument(REQUIRED, "Recording: any file libsndfile reads.", metavar="IN")
    output_path: Path = argument(REQUIRED, "Restored recording; its extension is its format.", metavar="OUT")
    reference: tuple[Path, ...] = option(
        (), "Clean recording to compute metrics against.", panel=OUTPUT_PANEL, metavar="FILE"
    )
    report: Path | None = option(
        None, "Also write one HTML page with players and pictures.", panel=OUTPUT_PANEL, metavar="FILE"
    )
    parallel: int | None = option(None, "Segments to fit at the same time; memory grows.", panel=RUN_PANEL, least=1)
    resume: bool = option(False, "Go on where an interrupted run has left OUT.partial.", panel=RUN_PANEL)
    accept_truncated: bool = option(False, ACCEPT_TRUNCATED, panel=RUN_PANEL)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.task, {each.name: getattr(self, each.name) for each in fields(self)})

    @cached_property
    def options(self) -> TaskOptions:
        """The task's own options."""
        kind = TASKS[self.task].options
        return kind(**{each.name: getattr(self, each.name) for each in fields(kind) if each.metadata})

    @cached_property
    def settings(self) -> Settings:
        """The settings of the fit."""
        presets = TASKS[self.task].presets
        given = {each.name: getattr(self, each.name, None) for each in fields(presets["quality"])}
        return choose_settings(presets, self.preset, given)

    @cached_property
    def paths(self) -> Paths:
        """Where everything goes."""
        source, target = self.input_path, self.output_path
        names = self.options.names(self.settings.estimator)
        if not names:
            from dapcli.audio.files import beside

            return Paths({"output": target}, target.parent / f"{target.name}.json", beside(target, ".partial"))
        if _SOURCES in map(str.casefold, names):
            raise SettingsError(f"--names: {_SOURCES} is the name of the record; choose another")
        extension = self.options.extension
        suffix = source.suffix if extension is None else f".{extension.removeprefix('.')}"
        outputs = {name: target / f"{name}{suffix}" for name in names}
        return Paths(outputs, target / f"{_SOURCES}.json", target / f"{_SOURCES}.partial")

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (self.input_path, *self.reference, *self.options.files)

    @property
    def written(self) -> Sequence[tuple[str, Path]]:
        """All files that are written, by what people call them."""
        outputs, record, _ = self.paths
        return [*outputs.items(), ("record", record), *([("report", self.report)] if self.report else [])]

    @property
    def fingerprint(self) -> str:
        """A name for all that decides what is written: the same for files of the same content, wherever they are."""
        from dapcli.audio.files import digest

        files = self.options.files
        own = {name: value for name, value in asdict(self.options).items() if value not in {*files, *map(str, files)}}
        decided = [dapcli.__version__, self.task, own, asdict(self.settings), [digest(path) for path in self.inputs]]
        return sha256(json.dumps(decided).encode()).hexdigest()

    def found(self) -> Record | None:
        """The record of what an earlier run has left in the same place."""
        try:
            record = json.loads(self.paths.record.read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and "fingerprint" in record else None

    def is_done(self, record: Record | None) -> bool:
        """Whether all is written already, by the same command on the same files: it has left this record then."""
        try:
            return (
                record is not None
                and all(path.exists() for _, path in self.written)
                and record["fingerprint"] == self.fingerprint
            )
        except OSError:  # reading it again will say why
            return False

    def run(self, on_written: Callable[[], None] = finish_undisturbed) -> Record:
        """Restore the recording, or separate it, and return the record, or the plan of a dry run.

        ``on_written`` is called when all is on disk.
        """
        task, options, settings = TASKS[self.task], self.options, self.settings
        if options.fixed_order and not self.reference:
            raise SettingsError("--fixed-order says how references are compared; give them with --reference")
        # Paths first: they fail at once, while torch takes seconds to import.
        with self._files() as files:
            if not options.dry_run:
                files.check_space(settings.segment)
            from rich.markup import escape

            from dapcli.pipeline.store import Store
            from dapcli.report.console import fit_progress, make_console, print_summary
            from dapcli.report.record import build_record, to_json

            problem = load(task.pose)(files.recording, options, self.input_path)
            console = make_console()
            if not self.quiet:
                for line in _found(problem, files.notes):
                    console.print(escape(line), soft_wrap=True)
            if options.dry_run:
                notes = [*files.notes.values(), *problem.notes]
                plan = {"task": self.task, "input": str(self.input_path), "notes": notes, **problem.fingerprint}
                if self.as_json:
                    typer.echo(json.dumps(plan, indent=2))
                return plan
            fingerprint = self.fingerprint  # of files as they are now
            store = Store(files.partial, partial(self._segments, problem), resume=self.resume, overwrite=self.overwrite)
            progress = fit_progress(console, quiet=self.quiet, noise="noise_profile" in task.arguments)
            with store, progress as (on_step, say):
                result = load(task.function)(
                    problem.recording,
                    settings=settings,
                    **problem.arguments(task.arguments),
                    device=self.device,
                    parallel=self.parallel,
                    references=tuple(files.references.values()),
                    on_step=on_step,
                    store=store,
                )
                say("joining the segments" if len(result.segments) > 1 else "writing")
                written = result.estimates.as_file(files.container, files.subtype)
                say("computing metrics" if files.references else "writing")
                record = build_record(
                    self.task,
                    problem,
                    result,
                    input_path=self.input_path,
                    outputs=files.outputs,
                    output_path=self.output_path,
                    written=written,
                    references=files.references,
                    fixed_order=options.fixed_order,
                    notes=files.notes,
                )
                record["fingerprint"] = fingerprint
                text = to_json(record)
                page = ""
                if self.report:
                    say("drawing the page")
                    from dapcli.report.page import render_page  # deferred: it draws, and few runs ask for it

                    page = render_page(record, problem, result, written, files.references)
                say("writing")
                files.write(written, text, page)
                on_written()
            if self.as_json:
                typer.echo(text, nl=False)
            if not self.quiet:
                print_summary(console, record, files.written)
            return record

    def _segments(self, problem: Problem[Any]) -> dict[str, Any]:
        """All that decides the finished segments, as JSON can hold it."""
        from dapcli.audio.files import digest

        settings, inputs = self.settings, {"input": self.input_path}
        if settings.stop == "oracle":
            inputs |= {f"reference_{number}": path for number, path in enumerate(self.reference, 1)}
        digests = {name: digest(path) for name, path in inputs.items()}
        return {"version": dapcli.__version__, "task": self.task, **problem.fingerprint, **asdict(settings), **digests}

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs from all that is to be written, once it is checked.

        Raises:
            OutputError: A file cannot, or must not, be written.
        """
        from dapcli.audio.files import check_writable, claim, output_folder

        target, written = self.output_path, [path for _, path in self.written]
        with output_folder(target) if self.options.folder else nullcontext(), ExitStack() as claims:
            for path in written:
                check_writable(path, overwrite=self.overwrite)
                if any(path.exists() and each.exists() and path.samefile(each) for each in self.inputs):
                    raise OutputError(f"{path}: is an input; name another file")
            if len({path.resolve() for path in written}) < len(written):
                raise OutputError("what is restored, its .json and --report must be different files")
            for path in dict.fromkeys((target, *written)):
                claims.enter_context(claim(path))
            yield

    @contextmanager
    def _files(self) -> Iterator[Files]:
        """The files of the run, once all paths are checked; this does not import torch.

        Raises:
            InputError: The recording or a reference cannot be read, or they do not match.
            SettingsError: There are too many or too few references, or the extension of the outputs stands for no
                format that can hold the recording.
            OutputError: A file cannot, or must not, be written.
        """
        from dapcli.audio import open_audio, open_matching, output_format
        from dapcli.audio.writing import format_notes, metadata_to_write

        reading = {"accept_truncated": self.accept_truncated}
        source, target, references = self.input_path, self.output_path, self.reference
        outputs, _, kept = self.paths
        if target == _PIPE:
            raise SettingsError("-: no recording is written to a pipe; name a file, and hand that on")
        if references and len(references) != len(outputs):
            count = len(references)
            raise SettingsError(f"--reference: give one for each output; {count} were given for {len(outputs)}")
        if len(set(references)) < len(references):
            raise SettingsError("--reference names one file twice; give each source its own")
        with self.claimed(), ExitStack() as opened:
            recording = opened.enter_context(open_audio(source, **reading))
            try:
                container, subtype = output_format(next(iter(outputs.values())), recording)
            except SettingsError as error:
                raise SettingsError(f"{error} with --format" if self.options.folder else str(error)) from error
            clean = {path: opened.enter_context(open_matching(path, recording, **reading)) for path in references}
            told = (note for file in (recording, *clean.values()) for note in file.notes)
            notes = {f"input_{number}": note for number, note in enumerate(told, 1)}
            metadata = metadata_to_write(source, recording, container, subtype)
            lost = format_notes(target, recording, container, subtype) + metadata.note(target, container)
            notes |= {f"output_{number}": note for number, note in enumerate(lost, 1)}
            yield Files(recording, clean, outputs, container, subtype, metadata, self.written, kept, notes)


def options_of(name: str, owner: type, changes: Mapping[str, Mapping[str, Any]] | None = None) -> list[Declaration]:
    """The options of a command for a task: those of the command itself, of the task and of the fit."""
    task = TASKS[name]
    estimators = "; ".join(f"{each}: {estimator.summary}" for each, estimator in task.estimators.items())
    words = {
        "preset": {"help": f"Named set of settings: {', '.join(task.presets)}."},
        "estimator": {"help": f"{estimators}."},
        **(changes or {}),
    }
    return [
        *declare(owner, words),
        *declare(task.options, words),
        *declare(type(task.presets["quality"]), words, task=name, optional=True),
    ]


@cache
def task_command(name: str) -> type[TaskCommand]:
    """The command of a task."""
    changes: dict[str, dict[str, Any]] = {}
    if TASKS[name].options.folder:
        changes = {
            "output_path": {"metavar": "OUTDIR", "help": "Folder for one file per source; made if it is missing."},
            "reference": {"help": "A source as it was, to compute metrics against; once for each."},
            "resume": {"help": "Go on where an interrupted run has left OUTDIR/separation.partial."},
        }
    return make_command(TaskCommand, options_of(name, TaskCommand, changes), task=name)


def _make(name: str, values: Mapping[str, Any]) -> TaskCommand:
    return task_command(name)(**values)


def add_tasks(app: typer.Typer) -> None:
    """Register a command for every task of the table."""
    for name, task in TASKS.items():
        add_command(app, name, task_command(name), f"{task.summary}\n\n{task.details}", task.examples)


def _found(problem: Problem[Any], notes: Mapping[str, str]) -> Iterator[str]:
    """What is known of a recording before the fit: its first gaps, and notes, with those on its files first."""
    from dapcli.signal.gaps import describe

    if problem.degradation is not None and problem.degradation.gaps:
        lines = describe(problem.degradation.gaps, problem.rate)
        yield from (f"gap: {line}" for line in lines[:_PRINTED])
        if len(lines) > _PRINTED:
            yield f"gap: and {len(lines) - _PRINTED} more"
    yield from (f"note: {note}" for note in (*notes.values(), *problem.notes))
