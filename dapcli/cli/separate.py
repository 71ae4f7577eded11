"""``dap separate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.audio.files import output_folder
from dapcli.cli import options
from dapcli.cli.run import Files, OnStep, Outcome
from dapcli.errors import SettingsError
from dapcli.signal.source_types import ANY_TYPE, DEFAULT_TYPES, SOURCE_TYPES, check_types, default_names

if TYPE_CHECKING:
    from dapcli.pipeline.store import Store

# What the record, and the folder of finished segments, are called.
_RECORD = "separation"
_KINDS = "; ".join(f"{name} ({kind.description})" for name, kind in SOURCE_TYPES.items())


def separate(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="Mixture: any file libsndfile reads.")],
    output_path: Annotated[
        Path, typer.Argument(metavar="OUTDIR", help="Folder for one file per source; made if it is missing.")
    ],
    count: Annotated[
        int | None,
        typer.Option("--sources", min=min(DEFAULT_TYPES), max=max(DEFAULT_TYPES), help="How many.", show_default="2"),
    ] = None,
    kinds: Annotated[
        str | None, typer.Option("--kinds", metavar="KIND,KIND", help=f"What each source is: {_KINDS}.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="NAME,NAME", help="Names of the files.", show_default="the kinds")
    ] = None,
    extension: Annotated[
        str | None, typer.Option("--format", metavar="EXTENSION", help="Extension of the files.", show_default="IN's")
    ] = None,
    consistent: Annotated[
        bool, typer.Option("--consistent/--no-consistent", help="Make the sources sum to the mixture.")
    ] = True,
    prior: options.Prior = None,
    method: options.Method = "share",
    preset: options.SeparationPreset = "quality",
    device: options.Device = "auto",
    seed: options.Seed = None,
    parallel: options.Parallel = None,
    resume: options.SeparationResume = False,
    references: options.References = None,
    fixed_order: options.FixedOrder = False,
    report: options.Report = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    stop: options.SeparationStop = None,
    iterations: options.RepairIterations = None,
    learning_rate: options.LearningRate = None,
    width: options.Width = None,
    dilation: options.Dilation = None,
    perturbation: options.Perturbation = None,
    averaging: options.Averaging = None,
    window: options.Window = None,
    hop: options.Hop = None,
    segment: options.Segment = None,
    rate: options.Rate = None,
    precision: options.Precision = None,
) -> None:
    """Separate a mixture into its sources.

    Writes one file per source into OUTDIR, each with the input's rate, channels, subtype and length, and
    separation.json beside them. The sources sum to the mixture. With one --reference per source, metrics compare them
    in the order that suits best.
    """
    del debug  # read by the entry point
    settings = options.make_settings(
        preset,
        options.separation_presets(method),
        prior=prior,
        seed=seed,
        stop=stop,
        iterations=iterations,
        learning_rate=learning_rate,
        width=width,
        dilation=dilation,
        perturbation=perturbation,
        averaging=averaging,
        window=window,
        hop=hop,
        segment=segment,
        rate=rate,
        precision=precision,
    )
    clean = references or []
    if method == "paper" and kinds:
        raise SettingsError("--kinds belongs to --method share; the paper's makes no use of them")
    chosen = _choose_kinds(kinds, count)
    called = _choose_names(names, (ANY_TYPE,) * len(chosen) if method == "paper" else chosen)
    if clean and len(clean) != len(chosen):
        raise SettingsError(f"--reference was given {len(clean)} times for {len(chosen)} sources; give one for each")
    if len(set(clean)) < len(clean):
        raise SettingsError("--reference names one file twice; give each source its own")
    if fixed_order and not clean:
        raise SettingsError("--fixed-order says how references are compared; give them with --reference")

    suffix = input_path.suffix if extension is None else f".{extension.removeprefix('.')}"
    files = Files(
        input_path,
        {name: output_path / f"{name}{suffix}" for name in called},
        output_path / f"{_RECORD}.json",
        output_path / f"{_RECORD}.partial",
        clean,
        report,
        resume,
        overwrite,
        as_json,
        quiet,
    )
    # Paths first: they fail at once, while torch takes seconds to import.
    with output_folder(output_path), files.open() as job:
        from dapcli.report.sources import build_separation_record
        from dapcli.tasks import _api_separation as separation

        # Before --overwrite removes finished segments.
        separation.check_separation(
            settings, device, consistent=consistent, has_reference=bool(clean), parallel=parallel
        )

        def fit(on_step: OnStep | None, store: Store | None) -> Outcome:
            separated = separation.separate(
                job.recording,
                chosen,
                settings,
                consistent=consistent,
                device=device,
                parallel=parallel,
                references=job.references or None,
                on_step=on_step,
                store=store,
            )
            written = separated.sources.as_file(job.container, job.subtype)
            record = build_separation_record(
                separated,
                input_path=input_path,
                output_path=output_path,
                outputs=files.outputs,
                written=written,
                mixture=job.recording,
                references=dict(zip(clean, job.references, strict=True)),
                fixed_order=fixed_order,
                consistent=consistent,
            )

            def page() -> str:
                from dapcli.report.page import render_separation_page

                return render_separation_page(
                    record,
                    separated.result,
                    job.recording,
                    written,
                    dict(zip(map(str, clean), job.references, strict=True)),
                )

            return Outcome(list(written), record, page)

        job.run(settings, {"task": "separate", "kinds": chosen, "consistent": consistent}, fit, noise=False)


def _choose_kinds(text: str | None, count: int | None) -> tuple[str, ...]:
    """The kinds of the sources: those that were given, or the usual ones of so many.

    Raises:
        SettingsError: They are not kinds of two to four sources, or not of so many.
    """
    if text is None:
        return DEFAULT_TYPES[count or 2]
    kinds = _split(text)
    check_types(kinds)
    if count not in (None, len(kinds)):
        raise SettingsError(f"--kinds has {len(kinds)} sources, --sources {count}; they must agree, or leave one out")
    return kinds


def _choose_names(text: str | None, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """What to call sources of these kinds: what was given, or their kinds.

    Raises:
        SettingsError: There are more or fewer than sources, or one does not name a file of its own.
    """
    if text is None:
        return default_names(kinds)
    names = _split(text)
    if len(names) != len(kinds):
        raise SettingsError(f"--names has {len(names)} for {len(kinds)} sources; give one for each")
    for name in names:
        if name in ("", "..") or Path(name).name != name or "\\" in name or "\0" in name:
            raise SettingsError(f"--names: {name!r} is not a plain file name; leave out folders")
        if name.casefold() == _RECORD:
            raise SettingsError(f"--names: {_RECORD} is the name of the record; choose another")
    if len({name.casefold() for name in names}) < len(names):
        raise SettingsError("--names has one name twice; all sources need their own, in more than upper and lower case")
    return names


def _split(text: str) -> tuple[str, ...]:
    """The parts of a text with commas between them."""
    return tuple(part.strip() for part in text.split(","))
