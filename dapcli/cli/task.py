"""The one command behind every task: pose the problem, call the task's function, write what comes out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from dapcli.cli.command import OUTPUT_PANEL, REQUIRED, RunCommand, add_command, argument, declare
from dapcli.cli.files import open_run
from dapcli.errors import SettingsError
from dapcli.settings import RUN_PANEL, choose_settings, option
from dapcli.tasks import TASKS, load

if TYPE_CHECKING:
    from dapcli.tasks.problem import Problem

# Of more gaps than this only the first are printed.
_PRINTED = 20


@dataclass(frozen=True, kw_only=True)
class TaskCommand(RunCommand):
    """A task, with the options of every run."""

    task: ClassVar[str]

    input_path: Path = argument(REQUIRED, "Recording: any file libsndfile reads.", metavar="IN")
    output_path: Path = argument(REQUIRED, "Restored recording; its extension is its format.", metavar="OUT")
    parallel: int | None = option(None, "Segments to fit at the same time; memory grows.", panel=RUN_PANEL, least=1)
    resume: bool = option(False, "Go on where an interrupted run has left OUT.partial.", panel=RUN_PANEL)
    reference: tuple[Path, ...] = option((), "Clean recording to compute metrics against.", panel=OUTPUT_PANEL)
    report: Path | None = option(None, "Also write one HTML page with players and pictures.", panel=OUTPUT_PANEL)

    def run(self) -> None:
        """Restore the recording, or separate it."""
        task = TASKS[self.task]
        own = [each.name for each in fields(task.options) if each.metadata]
        options = task.options(**{name: getattr(self, name) for name in own})
        given = {each.name: getattr(self, each.name, None) for each in fields(task.presets["quality"])}
        settings = choose_settings(task.presets, self.preset, given)
        if options.fixed_order and not self.reference:
            raise SettingsError("--fixed-order says how references are compared; give them with --reference")
        # Paths first: they fail at once, while torch takes seconds to import.
        with open_run(self, options, options.names(settings.estimator)) as run:
            from rich.markup import escape

            from dapcli.pipeline.store import Store
            from dapcli.report.console import fit_progress, make_console, print_summary
            from dapcli.report.page import render_page
            from dapcli.report.record import build_record, to_json

            problem = load(task.pose)(run.recording, options, self.input_path)
            console = make_console()
            if not self.quiet:
                for line in _found(problem):
                    console.print(escape(line), soft_wrap=True)
            if options.dry_run:
                plan = {"task": self.task, "input": str(self.input_path), "notes": problem.notes}
                if self.as_json:
                    typer.echo(json.dumps({**plan, **problem.fingerprint}, indent=2))
                return
            fingerprint = partial(run.fingerprint, self.task, problem, settings)
            store = Store(run.partial, fingerprint, resume=self.resume, overwrite=self.overwrite)
            progress = fit_progress(console, quiet=self.quiet, noise="noise_profile" in task.arguments)
            with store, progress as on_step:
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
                page = render_page(record, problem, result, written, run.references) if self.report else ""
                run.write(written, text, page)
            if self.as_json:
                typer.echo(text, nl=False)
            if not self.quiet:
                print_summary(console, record, run.written)


def add_tasks(app: typer.Typer) -> None:
    """Register a command for every task of the table."""
    for name, task in TASKS.items():
        estimators = "; ".join(f"{each}: {estimator.summary}" for each, estimator in task.estimators.items())
        changes: dict[str, dict[str, Any]] = {
            "preset": {"help": f"Named set of settings: {', '.join(task.presets)}."},
            "estimator": {"help": f"{estimators}."},
        }
        if task.options.folder:
            changes |= {
                "output_path": {"metavar": "OUTDIR", "help": "Folder for one file per source; made if it is missing."},
                "reference": {"help": "A source as it was, to compute metrics against; once for each."},
                "resume": {"help": "Go on where an interrupted run has left OUTDIR/separation.partial."},
            }
        declared = [
            *declare(TaskCommand, changes),
            *declare(task.options, changes),
            *declare(type(task.presets["quality"]), changes, task=name, optional=True),
        ]
        add_command(app, name, TaskCommand, f"{task.summary}\n\n{task.details}", declared, task=name)


def _found(problem: Problem[Any]) -> Iterator[str]:
    """What is known of a recording before the fit: its first gaps, and notes."""
    from dapcli.signal.gaps import describe

    if problem.degradation is not None and problem.degradation.gaps:
        lines = describe(problem.degradation.gaps, problem.rate)
        yield from (f"gap: {line}" for line in lines[:_PRINTED])
        if len(lines) > _PRINTED:
            yield f"gap: and {len(lines) - _PRINTED} more"
    yield from (f"note: {note}" for note in problem.notes)
