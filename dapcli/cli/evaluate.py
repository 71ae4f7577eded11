"""``dap evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from dapcli.cli.command import OUTPUT_PANEL, OWN_PANEL, REQUIRED, Command, argument
from dapcli.errors import InterruptedRunError, PartialError, SettingsError
from dapcli.settings import RUN_PANEL, Settings, choose_settings, option
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.tasks import TASKS
from dapcli.tasks.options import parse_range, split

_own = partial(option, panel=OWN_PANEL)
_protocol = partial(option, None, panel="Protocol (defaults are the papers')")
# The options that are values of a protocol, by the names that it has for them.
_VALUES = ("noise_std", "noise", "noisy", "snr", "gap", "rms", "types", "clip_snr", "levels")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Degrade clean clips, or take noisy ones as they are, restore them with several methods, and compare.

    Writes to DIR results.md, .csv and .json, a page with players and pictures (index.html), and every recording. An
    interrupted run goes on where it was when the command is repeated; more priors, baselines and clips can be added.
    """

    task: str = argument("TASK", f"{', '.join(TASKS)}.")
    clean: tuple[Path, ...] = argument(
        "CLEAN...", "Clean files, folders, or CSVs with a path per line; to separate, one per source.", ()
    )
    output_dir: Path = _own(REQUIRED, "Folder for all results.", metavar="DIR")
    prior: tuple[str, ...] = _own((), "Network to evaluate, or all; give it several times.")
    baseline: tuple[str, ...] = _own((), "Other method to evaluate, or all; give it several times.")
    oracle: bool = _own(
        True,
        "Also fit with the stop that knows the reference, as the papers do; doubles the time.",
        flag="--oracle/--no-oracle",
    )
    duration: float | None = _own(
        None, "Length of the clips, s; 1 without it (the papers have 1, 2, 3), pairs whole.", above=0.1
    )
    clips: int | None = _own(None, "Draw so many clips; all of them without it.", least=1)
    seed: int = _own(0, "Seed of all random numbers.", least=0)
    preset: str = option(
        "quality", "Named set of settings of the task's command: quality, fast and more.", panel=RUN_PANEL
    )
    estimator: str | None = option(None, "How the network's output becomes an estimate; see the task's help.")
    iterations: int | None = option(None, "Iterations of pretraining on a clip, or of each segment's fit.", above=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", panel=RUN_PANEL)
    jobs: int = option(1, "Methods to run at the same time; memory grows.", panel=RUN_PANEL, least=1)
    protocol: str | None = _protocol("gaussian, environmental or pairs; other tasks have one each.")
    noise_std: float | None = _protocol("gaussian: standard deviation, 0.1.")
    noise: Path | None = _protocol("environmental: folder of noise recordings.")
    snr: str | None = _protocol("environmental: range of the SNR in dB, 5:9.", metavar="LOW:HIGH")
    noisy: Path | None = _protocol("pairs: folder of recordings as they are, noisy.", metavar="DIR")
    clean_pairs: Path | None = _protocol(
        "pairs: folder of the same without noise, by the same names.", flag="--clean", metavar="DIR"
    )
    gap: str | None = _protocol("inpaint: range of the gap's length in s, 0.1:0.25.", metavar="LOW:HIGH")
    rms: float | None = _protocol("separate: level of each source, 0.1.")
    types: str | None = _protocol(
        "separate: types of the sources that dap is told; harmonic,percussive.", metavar="TYPE,..."
    )
    clip_snr: float | None = _protocol("declip: SNR that clipping leaves, 7 dB.")
    levels: int | None = _protocol("dequantize: levels from -1 to 1, 16.")
    overwrite: bool = option(False, "Start anew in a folder that has results.", panel=OUTPUT_PANEL)
    as_json: bool = option(False, "Print the JSON of the results on stdout.", panel=OUTPUT_PANEL, flag="--json")
    quiet: bool = option(False, "No progress and no summary, only errors.", panel=OUTPUT_PANEL, flag="--quiet -q")

    def run(self) -> None:
        """Evaluate all methods, and write the results."""
        if self.task not in TASKS:
            raise SettingsError(f"unknown task {self.task!r}; choose one of {', '.join(TASKS)}")
        clean, values = self._clean(), self._values()
        duration = 1.0 if self.duration is None and self.noisy is None else self.duration
        given = {"estimator": self.estimator, "iterations": self.iterations, "seed": self.seed}
        settings = choose_settings(TASKS[self.task].presets, self.preset, given)

        from rich.markup import escape

        from dapcli.evaluation.clips import collect, draw_clips, pair
        from dapcli.evaluation.folder import Folder
        from dapcli.evaluation.methods import make_methods
        from dapcli.evaluation.protocols import make_protocol
        from dapcli.evaluation.run import run
        from dapcli.evaluation.unit import Evaluation
        from dapcli.report.comparison import make_comparison
        from dapcli.report.comparison_files import to_object, write_comparison
        from dapcli.report.console import evaluation_progress, make_console, print_comparison

        for name in {"noise", "noisy"} & values.keys():
            values[name] = tuple(collect([values[name]], outside=self.output_dir))
        protocol = make_protocol(self.task, self.protocol, values)
        protocol.check(duration)
        priors, baselines = self.prior, self.baseline
        if not priors and not baselines:
            priors, baselines = (Settings.prior,), ("all",)
        methods = make_methods(self.task, priors, baselines, settings, self.device, oracle=self.oracle)
        sources = [[path] for path in clean] if self.task == "separate" else [clean]
        groups = [collect(paths, outside=self.output_dir) for paths in sources]
        pairs = pair(values["noisy"], groups[0]) if self.noisy else None
        drawn = draw_clips([list(pairs)] if pairs else groups, duration, self.clips, self.seed, pairs)
        evaluation = Evaluation(protocol, settings, self.device, duration, drawn.clips, methods)
        configuration = evaluation.configuration()

        folder = Folder(self.output_dir)
        folder.open(configuration, overwrite=self.overwrite)
        console = make_console()
        try:
            with evaluation_progress(console, quiet=self.quiet) as on_unit:
                outcome = run(evaluation, folder, jobs=self.jobs, on_unit=on_unit)
            comparison = make_comparison(configuration, outcome, drawn)
            write_comparison(folder, comparison)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"interrupted; what is finished is kept in {self.output_dir}; repeat the command to go on"
            ) from None
        if self.as_json:
            typer.echo(to_object(comparison), nl=False)
        if not self.quiet:
            print_comparison(console, comparison)
            page = escape(str(self.output_dir / "index.html"))
            console.print(f"results: {page}, results.md, .csv, .json", soft_wrap=True)
        if outcome.failures or drawn.unreadable:
            raise PartialError(f"{comparison.failed}; results.md in {self.output_dir} says why; all others are done")

    def _clean(self) -> list[Path]:
        """The clean recordings, which may be named in two ways.

        Raises:
            SettingsError: They are named in both ways or in none, or do not suit the task.
        """
        if (self.noisy is None) != (self.clean_pairs is None):
            raise SettingsError("--noisy and --clean name both sides of pairs; give both")
        if self.clean and self.clean_pairs:
            raise SettingsError("CLEAN... and --clean are two ways to name clean recordings; leave one out")
        clean = [self.clean_pairs] if self.clean_pairs else list(self.clean)
        if not clean:
            raise SettingsError("missing CLEAN...; name clean recordings, or pairs with --noisy and --clean")
        if self.task == "separate" and len(clean) not in DEFAULT_TYPES:
            raise SettingsError("separate mixes a clip of each CLEAN; name two to four")
        return clean

    def _values(self) -> dict[str, Any]:
        """The values of the protocol that were given, by its names for them.

        Raises:
            SettingsError: One is not of its form.
        """
        values = {name: value for name in _VALUES if (value := getattr(self, name)) is not None}
        values |= {name: parse_range(values[name], f"--{name}") for name in ("snr", "gap") if name in values}
        if self.types:
            values["types"] = split(self.types)
        if self.task == "separate":
            types = values.setdefault("types", DEFAULT_TYPES[len(self.clean)])
            if len(types) != len(self.clean):
                count = f"{len(types)} sources for {len(self.clean)} of CLEAN"
                raise SettingsError(f"--types names {count}; name the type of each")
        return values
