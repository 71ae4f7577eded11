"""``dap evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import typer

from dapcli.cli.command import CLUSTER, OUTPUT_PANEL, REQUIRED, Declaration, RunCommand, argument, declare, own
from dapcli.errors import InterruptedRunError, PartialError, SettingsError
from dapcli.settings import PAPER_RATE, RUN_PANEL, Settings, choose_settings, option
from dapcli.signal.source_types import DEFAULT_TYPES
from dapcli.tasks import TASKS
from dapcli.tasks.options import parse_range, split

_PROTOCOL = "Protocol (defaults are the papers')"
# The settings of a fit that can be given.
_SETTINGS = ("estimator", "iterations", "base_channels", "hop", "seed")


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunCommand):
    """Degrade clean clips, or take noisy ones as they are, restore them with several methods, and compare.

    Writes to DIR results.md, .csv and .json, a page with players and pictures (index.html), and every recording. An
    interrupted run goes on where it was when the command is repeated; more priors, baselines and clips can be added.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "denoise clean/ --noise noise/ --baseline all --output-dir DIR",
        "denoise --noisy noisy/ --clean clean/ --output-dir DIR",
        "separate piano/ drums/ --clips 20 --jobs 2 --output-dir DIR",
    )

    task: str = argument(REQUIRED, f"{', '.join(TASKS)}.", metavar="TASK")
    clean: tuple[Path, ...] = argument(
        (), "Clean files, folders, or CSVs with a path per line; to separate, one per source.", metavar="CLEAN..."
    )
    output_dir: Path = own(REQUIRED, "Folder for all results.", metavar="DIR")
    prior: tuple[str, ...] = own((), "Network to evaluate, or all; give it several times.")
    baseline: tuple[str, ...] = own((), "Other method to evaluate, or all; give it several times.")
    oracle: bool = own(True, "Also fit with the oracle's stop, as the papers do.", flag="--oracle/--no-oracle")
    curves: bool = own(False, "Fit with the oracle's stop alone, and show all priors' convergence in one picture.")
    duration: float | None = own(None, "Length of the clips, s; 1 without it, pairs whole.", above=0.1)
    clips: int | None = own(None, "Draw so many clips; all of them without it.", least=1)
    jobs: int | None = option(
        None, "Methods to run at the same time, 1 without it; memory grows.", panel=RUN_PANEL, least=1
    )
    cluster: str | None = option(None, CLUSTER, panel=RUN_PANEL, metavar="ADDRESS|auto|local")
    protocol: str | None = option(
        None,
        "gaussian, environmental, pairs; dropout, frames; paper: the Design paper's, at 16 kHz, with its settings.",
        panel=_PROTOCOL,
    )
    clean_pairs: Path | None = option(
        None, "pairs: folder of the same without noise.", panel=_PROTOCOL, flag="--clean", metavar="DIR"
    )
    overwrite: bool = option(False, "Start anew in a folder that has results.", panel=OUTPUT_PANEL)

    def run(self) -> None:
        """Evaluate all methods, and write the results."""
        if self.task not in TASKS:
            raise SettingsError(f"unknown task {self.task!r}; choose one of {', '.join(TASKS)}")
        if self.curves and (self.task == "separate" or not self.oracle):
            raise SettingsError(
                "--curves is about the oracle's fits of one recording; leave out --no-oracle, or separate"
            )
        values = self._values()
        clean = self._clean(values)
        duration = 1.0 if self.duration is None and "noisy" not in values else self.duration
        given = {name: getattr(self, name) for name in _SETTINGS}
        from dapcli.evaluation.protocols import DESIGN, make_protocol

        paper = self.protocol == DESIGN
        settings = choose_settings(TASKS[self.task].presets, self.preset or (DESIGN if paper else None), given)

        from dapcli.audio.files import claim

        if self.output_dir.is_dir():
            with claim(self.output_dir):  # fails now if another run has it, and not when torch is there
                pass

        from rich.markup import escape

        from dapcli.evaluation.clips import collect, draw_clips, pair
        from dapcli.evaluation.folder import Folder
        from dapcli.evaluation.methods import make_methods
        from dapcli.evaluation.run import Evaluation, run
        from dapcli.report.comparison import Comparison, to_object, write_comparison
        from dapcli.report.console import items_progress, make_console, print_comparison

        protocol = make_protocol(self.task, self.protocol, values)
        protocol.check(duration)
        priors, baselines = self.prior, self.baseline
        if not priors and not baselines:
            priors, baselines = (Settings.prior,), ("all",)
        methods = make_methods(
            self.task, priors, baselines, settings, self.device, oracle=self.oracle, blind=not self.curves
        )
        sources = [[path] for path in clean] if self.task == "separate" else [clean]
        groups = [collect(paths, outside=self.output_dir) for paths in sources]
        pairs = pair(values["noisy"], groups[0]) if "noisy" in values else None
        drawn = draw_clips(groups if pairs is None else [list(pairs)], duration, self.clips, settings.seed, pairs)
        rate = PAPER_RATE if paper else None
        evaluation = Evaluation(protocol, settings, self.device, duration, drawn.clips, methods, rate)
        configuration = evaluation.configuration()

        folder = Folder(self.output_dir)
        console = make_console()
        try:
            with (
                folder.open(configuration, overwrite=self.overwrite),
                items_progress(console, "evaluating", quiet=self.quiet) as on_unit,
            ):
                outcome = run(evaluation, folder, jobs=self.jobs, cluster=self.cluster, on_unit=on_unit)
                comparison = Comparison(configuration, outcome, drawn, self.curves)
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

    def _clean(self, values: dict[str, Any]) -> list[Path]:
        """The clean recordings; refuses those that are named in two ways or in none, or do not suit the task."""
        if ("noisy" in values) != (self.clean_pairs is not None):
            raise SettingsError("--noisy and --clean name both sides of pairs; give both")
        if self.clean and self.clean_pairs:
            raise SettingsError("CLEAN... and --clean are two ways to name clean recordings; leave one out")
        clean = [self.clean_pairs] if self.clean_pairs else list(self.clean)
        if not clean:
            raise SettingsError("missing CLEAN...; name clean recordings, or pairs with --noisy and --clean")
        if self.task == "separate":
            if len(clean) not in DEFAULT_TYPES:
                raise SettingsError("separate mixes a clip of each CLEAN; name two to four")
            types = values.setdefault("types", DEFAULT_TYPES[len(clean)])
            if len(types) != len(clean):
                count = f"{len(types)} sources for {len(clean)} of CLEAN"
                raise SettingsError(f"--types names {count}; name the type of each")
        return clean

    def _values(self) -> dict[str, Any]:
        """The values of protocols that were given, by their names and of their types.

        Raises:
            SettingsError: One is not of its form.
            InputError: A folder has no audio.
        """
        from dapcli.evaluation.clips import collect
        from dapcli.evaluation.protocols import PROTOCOLS

        values = {}
        for protocol in PROTOCOLS.values():
            kinds = get_type_hints(protocol)
            for name in (each.name for each in fields(protocol)):
                value = getattr(self, name)
                if value is None or value == []:
                    continue
                if kinds[name] == tuple[float, float]:
                    value = parse_range(value, f"--{name.replace('_', '-')}")
                elif kinds[name] == tuple[str, ...]:
                    value = split(",".join(value))
                elif kinds[name] == tuple[Path, ...]:
                    value = tuple(collect(value, outside=self.output_dir))
                values[name] = value
        return values


def further_options() -> list[Declaration]:
    """The settings of a fit that can be given, and the values of all protocols; None where they are not given."""
    from dapcli.evaluation.protocols import PROTOCOLS

    declared = {each[0]: each for each in declare(Settings, optional=True) if each[0] in _SETTINGS}
    users: dict[str, list[str]] = {}
    for name, protocol in PROTOCOLS.items():
        changes = {}
        for each in fields(protocol):
            users.setdefault(each.name, []).append(name)
            text = f"{', '.join(users[each.name])}: {each.metadata['help']}"
            changes[each.name] = {"panel": _PROTOCOL, "help": text}
        declared |= {each[0]: each for each in declare(protocol, changes, optional=True)}
    return list(declared.values())
