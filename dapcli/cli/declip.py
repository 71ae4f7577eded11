"""``dap declip``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.cli.repair import Shared, with_shared
from dapcli.errors import InputError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.signal.clipping import Clipping


@with_shared
def declip(
    shared: Shared,
    level: Annotated[
        float | None,
        typer.Option("--level", help="Level of clipping, full scale at 1; without it, detected by channel and side."),
    ] = None,
    consistent: Annotated[
        bool,
        typer.Option(
            "--consistent/--no-consistent", help="Keep reliable samples bit by bit, and clipped ones beyond the level."
        ),
    ] = True,
) -> None:
    """Restore the peaks of a clipped recording.

    Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json. Where the
    peaks pass full scale in an integer format, all of OUT is lowered; as .wav of a float recording it is not.
    """
    settings = shared.settings()
    with shared.files().open() as job:
        clipping = _find(job.recording, str(shared.input_path), level)
        shared.repair(
            job,
            "declip",
            clipping,
            settings,
            consistent=consistent,
            source="detected" if level is None else "given",
            decides={"low": clipping.low, "high": clipping.high},
        )


def _find(recording: Recording, path: str, level: float | None) -> Clipping:
    """Where a recording was clipped: at a level, or what is detected.

    Raises:
        SettingsError: The level is none.
        InputError: Nothing is clipped, or the recording is rather quantized.
    """
    from dapcli.signal.clipping import clipping_at, detect_clipping
    from dapcli.signal.quantization import detect_quantization

    if level is not None:
        return clipping_at(level, recording)
    if detect_quantization(recording):
        raise InputError(
            f"{path}: is quantized to a few levels, so that clipping cannot be detected; use dap dequantize, "
            "or give the level of clipping with --level"
        )
    clipping = detect_clipping(recording)
    if clipping is None:
        raise InputError(f"{path}: no clipping was detected; if it is clipped, give the level with --level")
    return clipping
