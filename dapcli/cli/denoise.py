"""``dap denoise``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from dapcli.cli import options
from dapcli.errors import OutputError


def denoise(
    input_path: Annotated[Path, typer.Argument(metavar="IN", help="Noisy recording: any file libsndfile reads.")],
    output_path: Annotated[
        Path, typer.Argument(metavar="OUT", help="Restored recording; its extension is its format.")
    ],
    prior: options.Prior = None,
    preset: options.Preset = "quality",
    device: options.Device = "auto",
    seed: options.Seed = None,
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
    setting, why the fit stopped, the estimated noise and, with --reference, the metrics.
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
    from dapcli.audio import full_scale_gain, open_matching, output_format, read_audio, write_audio
    from dapcli.files import check_writable, write_files

    noisy = read_audio(input_path)
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
    clean = None
    if reference:
        with open_matching(reference, noisy) as file:
            clean = noisy.with_samples(file.read(0, file.length))

    from dapcli import restore
    from dapcli.report.console import fit_progress, make_console, print_summary
    from dapcli.report.record import build_record, to_json

    console = make_console()
    with fit_progress(console, quiet=quiet) as on_step:
        result = restore.denoise(
            noisy,
            settings,
            device=device,
            noise_profile=stretch,
            reference=clean.samples if clean else None,
            on_step=on_step,
        )

    gain = full_scale_gain(float(abs(result.audio.samples).max()), subtype)
    written = noisy.with_samples(gain * result.audio.samples).as_file(container, subtype)
    record = build_record(
        "denoise",
        result,
        input_path=input_path,
        output_path=output_path,
        written=written,
        gain=gain,
        noisy=noisy,
        reference=clean.samples if clean else None,
    )
    text = to_json(record)

    def write(stream: BinaryIO) -> None:
        write_audio(
            stream,
            [written.samples],
            rate=written.rate,
            channels=written.channels,
            subtype=subtype,
            container=container,
        )

    files: dict[Path, bytes | Callable[[BinaryIO], None]] = {output_path: write, record_path: text.encode()}
    if report:
        from dapcli.report.page import render_page

        files[report] = render_page(record, result, noisy, written, clean).encode()
    write_files(files)
    if as_json:
        typer.echo(text, nl=False)
    if not quiet:
        names = ("output", "record", "report")
        print_summary(console, record, {name: str(path) for name, path in zip(names, files, strict=False)})
