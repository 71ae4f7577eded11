"""What the commands that restore lost samples have in common: their options, and the run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from dapcli.cli import options
from dapcli.cli.run import Files, Job, restoration_files
from dapcli.errors import SettingsError
from dapcli.settings import REPAIR_PRESETS, Settings

if TYPE_CHECKING:
    from dapcli.pipeline.result import Result
    from dapcli.pipeline.run import Progress
    from dapcli.pipeline.store import Store
    from dapcli.signal.degradation import Degradation

_SETTINGS = (
    *("prior", "seed", "estimator", "stop", "iterations", "learning_rate", "width", "dilation", "perturbation"),
    *("averaging", "window", "hop", "segment", "precision"),
)


@dataclass(frozen=True)
class Shared:
    """The options of every repair."""

    input_path: Annotated[Path, typer.Argument(metavar="IN", help="Damaged recording: any file libsndfile reads.")]
    output_path: Annotated[Path, typer.Argument(metavar="OUT", help="Restored recording; its extension is its format.")]
    prior: options.Prior = None
    preset: options.RepairPreset = "quality"
    device: options.Device = "auto"
    seed: options.Seed = None
    parallel: options.Parallel = None
    resume: options.Resume = False
    reference: options.Reference = None
    report: options.Report = None
    overwrite: options.Overwrite = False
    as_json: options.Json = False
    quiet: options.Quiet = False
    debug: options.Debug = False  # read by the entry point
    estimator: options.RepairEstimator = None
    stop: options.RepairStop = None
    iterations: options.RepairIterations = None
    learning_rate: options.LearningRate = None
    width: options.Width = None
    dilation: options.Dilation = None
    perturbation: options.RepairPerturbation = None
    averaging: options.Averaging = None
    window: options.Window = None
    hop: options.Hop = None
    segment: options.Segment = None
    precision: options.Precision = None

    def settings(self) -> Settings:
        """The settings that the options stand for.

        Raises:
            SettingsError: One is unknown or out of range.
        """
        if self.estimator == "mask":  # the presets' perturbation is out of its range, which would be said first
            raise SettingsError("--estimator mask removes noise; choose one of mix, generate")
        return options.make_settings(self.preset, REPAIR_PRESETS, **{name: getattr(self, name) for name in _SETTINGS})

    def files(self, *others: Path) -> Files:
        """The files that the options name, and others that are read."""
        return restoration_files(
            self.input_path,
            self.output_path,
            self.reference,
            report=self.report,
            resume=self.resume,
            overwrite=self.overwrite,
            as_json=self.as_json,
            quiet=self.quiet,
            others=others,
        )

    def repair(
        self,
        job: Job,
        task: str,
        degradation: Degradation,
        settings: Settings,
        *,
        consistent: bool,
        source: str,
        decides: Mapping[str, Any],
        notes: Sequence[str] = (),
    ) -> None:
        """Restore the recording of a job, whose degradation was found as ``source`` says; the rest as ``Job.restore``."""
        from dapcli.report.record import Repair
        from dapcli.tasks import _api_restore as restore

        # Before --overwrite removes finished segments.
        has_reference = self.reference is not None
        restore.check_repair(settings, self.device, has_reference=has_reference, parallel=self.parallel)

        def fill(on_step: Callable[[Progress], None] | None, store: Store | None) -> Result:
            return restore.repair(
                job.recording,
                degradation,
                settings,
                consistent=consistent,
                device=self.device,
                parallel=self.parallel,
                reference=job.clean,
                on_step=on_step,
                store=store,
            )

        description = {**degradation.describe(job.recording), "source": source}
        repaired = Repair(degradation, description, enforced=consistent, notes=tuple(notes))
        job.restore(task, settings, decides, fill, repaired)


def with_shared(command: Callable[..., None]) -> Callable[..., None]:
    """A function for Typer, with the fields of :class:`Shared` as parameters in place of the command's first."""

    def unfolded(**given: Any) -> None:
        shared = Shared(**{field.name: given.pop(field.name) for field in fields(Shared)})
        command(shared, **given)

    hints = {
        **get_type_hints(Shared, include_extras=True),
        **get_type_hints(command, include_extras=True),
        "return": None,
    }
    defaults = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default for field in fields(Shared)
    }
    _, *own = inspect.signature(command).parameters.values()
    names = list(defaults)
    # The command's own options come first, after IN and OUT.
    ordered = {name: defaults[name] for name in names[:2]}
    ordered |= {parameter.name: parameter.default for parameter in own}
    ordered |= defaults
    unfolded.__name__, unfolded.__doc__ = command.__name__, command.__doc__
    unfolded.__annotations__ = {name: hints[name] for name in ordered}
    unfolded.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in ordered.items()
        ]
    )
    return unfolded
