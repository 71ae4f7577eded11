"""``dap evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dapcli.cli import options
from dapcli.errors import InterruptedRunError, PartialError, SettingsError
from dapcli.settings import PRESETS, REPAIR_PRESETS, Settings
from dapcli.signal.source_types import DEFAULT_TYPES

_PROTOCOL = "Protocol (defaults are the papers')"


def _value(flag: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PROTOCOL, show_default=False)


def evaluate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="denoise, inpaint, separate, declip or dequantize.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", metavar="DIR", help="Folder for all results.")],
    clean: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CLEAN...", help="Clean files, folders, or CSVs with a path per line; to separate, one per source."
        ),
    ] = None,
    prior: Annotated[
        list[str] | None, typer.Option("--prior", help="Network to evaluate, or all; give it several times.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="Other method to evaluate, or all; give it several times.")
    ] = None,
    oracle: Annotated[
        bool,
        typer.Option(help="Also fit with the stop that knows the reference, as the papers do; doubles the time."),
    ] = True,
    duration: Annotated[
        float | None,
        typer.Option("--duration", help="Length of the clips, s; 1 without it (the papers have 1, 2, 3), pairs whole."),
    ] = None,
    clips: Annotated[
        int | None, typer.Option("--clips", min=1, help="Draw so many clips; all of them without it.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")] = 0,
    method: options.Method = "share",
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="Named set of settings of the task's command: quality, fast and more.",
            rich_help_panel="Run",
        ),
    ] = "quality",
    iterations: options.Iterations = None,
    device: options.Device = "auto",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Methods to run at the same time; memory grows.")] = 1,
    protocol: Annotated[
        str | None, _value("--protocol", "gaussian, environmental or pairs; other tasks have one each.")
    ] = None,
    noise_std: Annotated[float | None, _value("--noise-std", "gaussian: standard deviation, 0.1.")] = None,
    noise: Annotated[Path | None, _value("--noise", "environmental: folder of noise recordings.")] = None,
    snr: Annotated[str | None, _value("--snr", "environmental: range of the SNR in dB, 5:9.", "LOW:HIGH")] = None,
    noisy: Annotated[Path | None, _value("--noisy", "pairs: folder of recordings as they are, noisy.", "DIR")] = None,
    clean_pairs: Annotated[
        Path | None, _value("--clean", "pairs: folder of the same without noise, by the same names.", "DIR")
    ] = None,
    gap: Annotated[
        str | None, _value("--gap", "inpaint: range of the gap's length in s, 0.1:0.25.", "LOW:HIGH")
    ] = None,
    rms: Annotated[float | None, _value("--rms", "separate: level of each source, 0.1.")] = None,
    kinds: Annotated[
        str | None, _value("--kinds", "separate: what dap knows of the sources; harmonic,percussive.", "KIND,...")
    ] = None,
    clip_snr: Annotated[float | None, _value("--clip-snr", "declip: SNR that clipping leaves, 7 dB.")] = None,
    levels: Annotated[int | None, _value("--levels", "dequantize: levels from -1 to 1, 16.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew in a folder that has results.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Degradation clean clips, or take noisy ones as they are, restore them with several methods, and compare.

    Writes to DIR results.md, .csv and .json, a page with players and pictures (index.html), and every recording. An
    interrupted run goes on where it was when the command is repeated; more priors, baselines and clips can be added.
    """
    del debug  # read by the entry point
    if (noisy is None) != (clean_pairs is None):
        raise SettingsError("--noisy and --clean name both sides of pairs; give both")
    if clean and clean_pairs:
        raise SettingsError("CLEAN... and --clean are two ways to name clean recordings; leave one out")
    clean = [clean_pairs] if clean_pairs else clean
    if not clean:
        raise SettingsError("missing CLEAN...; name clean recordings, or pairs with --noisy and --clean")
    if duration is None and noisy is None:
        duration = 1
    if duration is not None and not 0.1 < duration < math.inf:
        raise SettingsError("--duration must be finite and above 0.1 s")
    if task == "separate" and len(clean) not in DEFAULT_TYPES:
        raise SettingsError("separate mixes a clip of each CLEAN; name two to four")
    told = None
    if task == "separate" or kinds:
        told = tuple(kinds.split(",")) if kinds else DEFAULT_TYPES[len(clean)]
        if task == "separate" and len(told) != len(clean):
            raise SettingsError(f"--kinds names {len(told)} sources for {len(clean)} of CLEAN; name the kind of each")
    values: dict[str, Any] = {
        "noise_std": noise_std,
        "noise": noise,
        "noisy": noisy,
        "snr": options.parse_range(snr, "--snr"),
        "gap": options.parse_range(gap, "--gap"),
        "rms": rms,
        "kinds": told,
        "clip_snr": clip_snr,
        "levels": levels,
    }
    if method != "share" and task != "separate":
        raise SettingsError("--method is for separate; leave it out")
    presets = {"denoise": PRESETS, "separate": options.separation_presets(method)}.get(task, REPAIR_PRESETS)
    settings = options.make_settings(preset, presets, iterations=iterations, seed=seed)
    given = {name: value for name, value in values.items() if value is not None}

    from rich.markup import escape

    from dapcli.evaluation.clips import collect, draw_clips, pair
    from dapcli.evaluation.folder import Folder
    from dapcli.evaluation.methods import make_methods
    from dapcli.evaluation.protocols import make_protocol
    from dapcli.evaluation.run import run
    from dapcli.evaluation.unit import Evaluation
    from dapcli.report.comparison import make_comparison
    from dapcli.report.comparison_console import evaluation_progress, print_comparison
    from dapcli.report.comparison_files import to_object, write_comparison
    from dapcli.report.console import make_console

    for name in ("noise", "noisy"):
        if name in given:
            given[name] = tuple(collect([given[name]], outside=output_dir))
    chosen = make_protocol(task, protocol, given)
    chosen.check(duration)
    priors, baselines = prior or [], baseline or []
    if not priors and not baselines:
        priors, baselines = [Settings().prior], ["all"]
    methods = make_methods(task, priors, baselines, settings, device, oracle=oracle)
    sources = [[path] for path in clean] if task == "separate" else [clean]
    groups = [collect(paths, outside=output_dir) for paths in sources]
    pairs = None
    if noisy is not None:
        pairs = pair(given["noisy"], groups[0])
        groups = [list(pairs)]
    drawn = draw_clips(groups, duration, clips, seed, pairs)
    evaluation = Evaluation(chosen, settings, device, duration, drawn.clips, methods)
    configuration = evaluation.configuration()

    folder = Folder(output_dir)
    folder.open(configuration, overwrite=overwrite)
    console = make_console()
    try:
        with evaluation_progress(console, quiet=quiet) as on_unit:
            outcome = run(evaluation, folder, jobs=jobs, on_unit=on_unit)
        comparison = make_comparison(configuration, outcome, drawn)
        write_comparison(folder, comparison)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; what is finished is kept in {output_dir}; repeat the command to go on"
        ) from None
    if as_json:
        typer.echo(to_object(comparison), nl=False)
    if not quiet:
        print_comparison(console, comparison)
        console.print(f"results: {escape(str(output_dir / 'index.html'))}, results.md, .csv, .json", soft_wrap=True)
    if outcome.failures or drawn.unreadable:
        raise PartialError(f"{comparison.failed}; results.md in {output_dir} says why; all others are done")
