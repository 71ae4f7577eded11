"""``dap denoise``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.cli import options
from dapcli.cli.run import restoration_files

if TYPE_CHECKING:
    from dapcli.pipeline.result import Result
    from dapcli.pipeline.run import Progress
    from dapcli.pipeline.store import Store


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
    resume: options.Resume = False,
    noise_profile: Annotated[
        str | None,
        typer.Option(
            "--noise-profile",
            metavar="START:END|FILE",
            help="Stretch with nothing but noise, in seconds, or a file of nothing but that noise.",
        ),
    ] = None,
    noise_model: Annotated[
        str | None,
        typer.Option("--noise-model", help="How the noise may move: auto, steady or moving.", show_default="auto"),
    ] = None,
    attenuation_limit: Annotated[
        float | None,
        typer.Option(
            "--attenuation-limit",
            metavar="DB",
            help="Lower noise by this much at the most; without it, by what keeps the sound whole.",
        ),
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
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    width: options.Width = None,
    fold: options.Fold = None,
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
        optimizer=optimizer,
        learning_rate=learning_rate,
        width=width,
        fold=fold,
        noise_model=noise_model,
        attenuation_limit=attenuation_limit,
        dilation=dilation,
        perturbation=perturbation,
        averaging=averaging,
        window=window,
        hop=hop,
        segment=segment,
        rate=rate,
        precision=precision,
    )
    profile_file = None if noise_profile is None else options.existing_file(noise_profile)
    stretch = None if profile_file else options.parse_stretch(noise_profile, "--noise-profile")

    files = restoration_files(
        input_path,
        output_path,
        reference,
        report=report,
        resume=resume,
        overwrite=overwrite,
        as_json=as_json,
        quiet=quiet,
        others=[profile_file] if profile_file else [],
    )
    # Paths first: they fail at once, while torch takes seconds to import.
    with files.open() as job:
        from dapcli.audio import read_audio
        from dapcli.audio.files import digest
        from dapcli.tasks import _api_restore as restore

        # Before --overwrite removes finished segments.
        restore.check_denoising(settings, device, has_reference=reference is not None, parallel=parallel)

        profile = read_audio(profile_file) if profile_file else stretch

        def remove_noise(on_step: Callable[[Progress], None] | None, store: Store | None) -> Result:
            return restore.denoise(
                job.recording,
                settings,
                device=device,
                parallel=parallel,
                noise_profile=profile,
                reference=job.clean,
                on_step=on_step,
                store=store,
            )

        job.restore(
            "denoise", settings, {"noise_profile": digest(profile_file) if profile_file else stretch}, remove_noise
        )
