"""``dap evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from dapcli.cli.command import OUTPUT_PANEL, REQUIRED, RunCommand, argument, own, protocol_value
from dapcli.errors import InterruptedRunError, PartialError, SettingsError
from dapcli.settings import RUN_PANEL, Settings, choose_settings, option
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.tasks import TASKS
from dapcli.tasks.options import parse_range, split

# The options that are values of a protocol, by the names that it has for them.
_VALUES = ("noise_std", "noise", "noisy", "snr", "gap", "rms", "types", "clip_snr", "levels")


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunCommand):
    """Degrade clean clips, or take noisy ones as they are, restore them with several methods, and compare.

    Writes to DIR results.md, .csv and .json, a page with players and pictures (index.html), and every recording. An
    interrupted run goes on where it was when the command is repeated; more priors, baselines and clips can be added.
    """

    task: str = argument(REQUIRED, f"{', '.join(TASKS)}.", metavar="TASK")
    clean: tuple[Path, ...] = argument(
        (), "Clean files, folders, or CSVs with a path per line; to separate, one per source.", metavar="CLEAN..."
    )
    output_dir: Path = own(REQUIRED, "Folder for all results.", metavar="DIR")
    prior: tuple[str, ...] = own((), "Network to evaluate, or all; give it several times.")
    baseline: tuple[str, ...] = own((), "Other method to evaluate, or all; give it several times.")
    oracle: bool = own(
        True,
        "Also fit with the stop that knows the reference, as the papers do; doubles the time.",
        flag="--oracle/--no-oracle",
    )
    duration: float | None = own(
        None, "Length of the clips, s; 1 without it (the papers have 1, 2, 3), pairs whole.", above=0.1
    )
    clips: int | None = own(None, "Draw so many clips; all of them without it.", least=1)
    seed: int = own(0, "Seed of all random numbers.", least=0)
    estimator: str | None = option(None, "How the network's output becomes an estimate; see the task's help.")
    iterations: int | None = option(None, "Iterations of pretraining on a clip, or of each segment's fit.", above=0)
    jobs: int = option(1, "Methods to run at the same time; memory grows.", panel=RUN_PANEL, least=1)
    protocol: str | None = protocol_value("gaussian, environmental or pairs; other tasks have one each.")
    noise_std: float | None = protocol_value("gaussian: standard deviation, 0.1.")
    noise: Path | None = protocol_value("environmental: folder of noise recordings.")
    snr: str | None = protocol_value("environmental: range of the SNR in dB, 5:9.", metavar="LOW:HIGH")
    noisy: Path | None = protocol_value("pairs: folder of recordings as they are, noisy.", metavar="DIR")
    clean_pairs: Path | None = protocol_value(
        "pairs: folder of the same without noise, by the same names.", flag="--clean", metavar="DIR"
    )
    gap: str | None = protocol_value("inpaint: range of the gap's length in s, 0.1:0.25.", metavar="LOW:HIGH")
    rms: float | None = protocol_value("separate: level of each source, 0.1.")
    types: str | None = protocol_value(
        "separate: types of the sources that dap is told; harmonic,percussive.", metavar="TYPE,..."
    )
    clip_snr: float | None = protocol_value("declip: SNR that clipping leaves, 7 dB.")
    levels: int | None = protocol_value("dequantize: levels from -1 to 1, 16.")
    overwrite: bool = option(False, "Start anew in a folder that has results.", panel=OUTPUT_PANEL)

    def run(self) -> None:
        """Evaluate all methods, and write the results."""
        if self.task not in TASKS:
            raise SettingsError(f"unknown task {self.task!r}; choose one of {', '.join(TASKS)}")
        clean, values = self._clean(), self._values()
        duration = 1.0 if self.duration is None and self.noisy is None else self.duration
        given = {name: getattr(self, name) for name in ("estimator", "iterations", "seed")}
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
        drawn = draw_clips(groups if pairs is None else [list(pairs)], duration, self.clips, self.seed, pairs)
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
            pages = f"{self.output_dir / 'index.html'}, results.md, .csv, .json"
            console.print(f"results: {escape(pages)}", soft_wrap=True)
        if outcome.failures or drawn.unreadable:
            raise PartialError(f"{comparison.failed}; results.md in {self.output_dir} says why; all others are done")

    def _clean(self) -> list[Path]:
        """The clean recordings; refuses those that are named in two ways or in none, or do not suit the task."""
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
