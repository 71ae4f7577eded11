"""``dap denoise``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.cli import options
from dapcli.errors import OutputError

if TYPE_CHECKING:
    from dapcli.files import Content


def denoise(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="Noisy recording: any file libsndfile reads.")],
    output_path: Annotated[
        Path, typer.Argument(metavar="OUT", help="Restored recording; its extension is its format.")
    ],
    prior: options.Prior = None,
    preset: options.Preset = "quality",
    device: options.Device = "auto",
    seed: options.Seed = None,
    parallel: options.Parallel = None,
    cuda_graph: options.CudaGraph = False,
    resume: options.Resume = False,
    noise_profile: Annotated[
        str | None,
        typer.Option("--noise-profile", metavar="START:END", help="Stretch with nothing but noise, in seconds."),
    ] = None,
    reference: options.Reference = None,
    report: options.Report = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    estimator: options.Estimator = None,
    stop: options.Stop = None,
    post_filter: options.PostFilter = None,
    iterations: options.Iterations = None,
    refinement: options.Refinement = None,
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
    """Remove noise from one recording.

    Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json: every
    setting, why the fit stopped, the estimated noise and, with --reference, the metrics. Long recordings are restored
    in segments; those that are finished when a run is interrupted stay in OUT.partial, and --resume goes on from there.
    """
    del debug  # read by the entry point
    settings = options.make_settings(
        preset,
        prior=prior,
        seed=seed,
        estimator=estimator,
        stop=stop,
        post_filter=post_filter,
        iterations=iterations,
        refinement=refinement,
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
    stretch = options.parse_stretch(noise_profile, "--noise-profile")

    # Paths first: they fail at once, while torch takes seconds to import.
    from dapcli.audio import open_audio, open_matching, output_format, write_audio
    from dapcli.files import check_writable, write_files

    with ExitStack() as files:
        noisy = files.enter_context(open_audio(input_path))
        container, subtype = output_format(output_path, noisy)
        record_path = output_path.with_suffix(".json")
        inputs = [input_path, *([reference] if reference else [])]
        outputs = [output_path, record_path, *([report] if report else [])]
        for path in outputs:
            check_writable(path, overwrite=overwrite)
            if any(path.exists() and path.samefile(source) for source in inputs):
                raise OutputError(f"{path}: is an input; name another file")
        if len({path.resolve() for path in outputs}) < len(outputs):
            raise OutputError("OUT, its .json and --report must be different files")
        clean = files.enter_context(open_matching(reference, noisy)) if reference else None

        from dapcli import restore
        from dapcli.cli.resume import kept_segments
        from dapcli.report.console import fit_progress, make_console, print_summary
        from dapcli.report.record import build_record, to_json

        restore.check_settings(settings, device, graph=cuda_graph)  # before --overwrite removes finished segments
        console = make_console()
        decides = {"input": input_path}
        if reference and settings.stop == "oracle":
            decides["reference"] = reference
        run = {"task": "denoise", "noise_profile": stretch}
        with (
            kept_segments(output_path, noisy, settings, decides, run, resume=resume, overwrite=overwrite) as store,
            fit_progress(console, quiet=quiet) as on_step,
        ):
            result = restore.denoise(
                noisy,
                settings,
                device=device,
                parallel=parallel,
                graph=cuda_graph,
                noise_profile=stretch,
                reference=clean,
                on_step=on_step,
                store=store,
            )
            written = result.restored.as_file(container, subtype)
            record = build_record(
                "denoise",
                result,
                input_path=input_path,
                output_path=output_path,
                written=written,
                gain=written.gain,
                noisy=noisy,
                reference=clean,
            )
            text = to_json(record)
            contents: dict[Path, Content] = {
                output_path: lambda stream: write_audio(
                    stream,
                    written.blocks(),
                    rate=written.rate,
                    channels=written.channels,
                    subtype=subtype,
                    container=container,
                ),
                record_path: text.encode(),
            }
            if report:
                from dapcli.report.page import render_page

                contents[report] = render_page(record, result, noisy, written, clean).encode()
            write_files(contents)
    if as_json:
        typer.echo(text, nl=False)
    if not quiet:
        names = ("output", "record", "report")
        print_summary(console, record, {name: str(path) for name, path in zip(names, contents, strict=False)})
