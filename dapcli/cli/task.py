"""The one command behind every task: pose the problem, call the task's function, write what comes out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from dapcli.cli.command import OUTPUT_PANEL, Command, add_command, argument, declare
from dapcli.cli.files import open_run
from dapcli.errors import SettingsError
from dapcli.settings import RUN_PANEL, choose_settings, option
from dapcli.tasks import TASKS, load

if TYPE_CHECKING:
    from dapcli.tasks.problem import Problem

# Of more gaps than this only the first are printed.
_PRINTED = 20


@dataclass(frozen=True, kw_only=True)
class TaskCommand(Command):
    """A task, with the options of every run."""

    task: ClassVar[str]

    input_path: Path = argument("IN", "Recording: any file libsndfile reads.")
    output_path: Path = argument("OUT", "Restored recording; its extension is its format.")
    preset: str = option("quality", "Named set of settings.", panel=RUN_PANEL)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel=RUN_PANEL)
    parallel: int | None = option(
        None, "Segments to fit at the same time; memory grows.", panel=RUN_PANEL, shown="by the device", least=1
    )
    resume: bool = option(False, "Go on where an interrupted run has left OUT.partial.", panel=RUN_PANEL)
    reference: tuple[Path, ...] = option((), "Clean recording to compute metrics against.", panel=OUTPUT_PANEL)
    report: Path | None = option(None, "Also write one HTML page with players and pictures.", panel=OUTPUT_PANEL)
    overwrite: bool = option(False, "Replace existing files.", panel=OUTPUT_PANEL)
    as_json: bool = option(False, "Print the JSON record on stdout, nothing else.", panel=OUTPUT_PANEL, flag="--json")
    quiet: bool = option(False, "No progress and no summary, only errors.", panel=OUTPUT_PANEL, flag="--quiet -q")

    def run(self) -> None:
        """Restore the recording, or separate it."""
        task = TASKS[self.task]
        options = self.part(task.options)
        given = {each.name: getattr(self, each.name, None) for each in fields(task.presets["quality"])}
        settings = choose_settings(task.presets, self.preset, given)
        if options.fixed_order and not self.reference:
            raise SettingsError("--fixed-order says how references are compared; give them with --reference")
        # Paths first: they fail at once, while torch takes seconds to import.
        with open_run(
            self.input_path,
            self.output_path,
            options.names(settings.estimator),
            extension=options.extension,
            references=self.reference,
            report=self.report,
            others=options.files,
            overwrite=self.overwrite,
        ) as run:
            from rich.markup import escape

            from dapcli.pipeline.store import FolderStore
            from dapcli.report.console import fit_progress, make_console, print_summary
            from dapcli.report.page import render_page
            from dapcli.report.record import build_record, to_json

            problem = load(task.pose)(run.recording, options, self.input_path)
            console = make_console()
            if not self.quiet:
                for line in _found(problem):
                    console.print(escape(line), soft_wrap=True)
            if options.dry_run:
                if self.as_json:
                    typer.echo(json.dumps(self._plan(problem), indent=2))
                return
            with (
                FolderStore(
                    run.partial,
                    partial(run.fingerprint, self.task, problem, settings),
                    resume=self.resume,
                    overwrite=self.overwrite,
                ) as store,
                fit_progress(console, quiet=self.quiet, noise="noise_profile" in task.arguments) as on_step,
            ):
                result = load(task.function)(
                    problem.recording,
                    settings=settings,
                    **problem.arguments(task.arguments),
                    device=self.device,
                    parallel=self.parallel,
                    references=tuple(run.references.values()),
                    on_step=on_step,
                    store=store,
                )
                written = result.estimates.as_file(run.container, run.subtype)
                record = build_record(
                    self.task,
                    problem,
                    result,
                    input_path=self.input_path,
                    outputs=run.outputs,
                    output_path=self.output_path,
                    written=written,
                    references=run.references,
                    fixed_order=options.fixed_order,
                )
                text = to_json(record)
                page = render_page(record, problem, result, written, run.references) if self.report else None
                run.write(written, text, page)
            if self.as_json:
                typer.echo(text, nl=False)
            if not self.quiet:
                print_summary(console, record, run.written)

    def _plan(self, problem: Problem[Any]) -> dict[str, Any]:
        """The gaps that a fit would fill, for ``--dry-run --json``."""
        from dapcli.signal.gaps import list_intervals

        gaps = list_intervals(problem.degradation.gaps)
        return {"task": self.task, "input": str(self.input_path), "gaps": gaps, "notes": list(problem.notes)}


def add_tasks(app: typer.Typer) -> None:
    """Register a command for every task of the table."""
    for name, task in TASKS.items():
        estimators = "; ".join(f"{each}: {estimator.summary}" for each, estimator in task.estimators.items())
        texts: dict[str, dict[str, Any]] = {
            "preset": {"help": f"Named set of settings: {', '.join(task.presets)}."},
            "estimator": {"help": f"{estimators}."},
        }
        if task.options.folder:
            texts |= {
                "output_path": {"metavar": "OUTDIR", "help": "Folder for one file per source; made if it is missing."},
                "reference": {"help": "A source as it was, to compute metrics against; once for each."},
                "resume": {"help": "Go on where an interrupted run has left OUTDIR/separation.partial."},
            }
        options = [
            *declare(TaskCommand, texts),
            *declare(task.options, texts),
            *declare(type(task.presets["quality"]), texts, task=name, optional=True),
        ]
        add_command(app, name, TaskCommand, f"{task.summary}\n\n{task.details}", options, task=name)


def _found(problem: Problem[Any]) -> Iterator[str]:
    """What is known of a recording before the fit: its first gaps, and notes."""
    from dapcli.signal.gaps import describe

    if problem.degradation is not None and problem.degradation.gaps:
        lines = describe(problem.degradation.gaps, problem.rate)
        yield from (f"gap: {line}" for line in lines[:_PRINTED])
        if len(lines) > _PRINTED:
            yield f"gap: and {len(lines) - _PRINTED} more"
    yield from (f"note: {note}" for note in problem.notes)
