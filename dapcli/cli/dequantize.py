"""``dap dequantize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.cli.repair import Shared, with_shared
from dapcli.errors import InputError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.signal.quantization import Quantization


@with_shared
def dequantize(
    shared: Shared,
    levels: Annotated[
        int | None, typer.Option("--levels", help="Levels of the quantizer between -1 and 1; without it, detected.")
    ] = None,
    consistent: Annotated[
        bool, typer.Option("--consistent/--no-consistent", help="Keep every sample in its cell of the quantizer.")
    ] = True,
) -> None:
    """Restore a recording that was quantized to a few levels.

    Writes OUT with the input's rate, channels, subtype and length, and beside it OUT with the suffix .json.
    """
    settings = shared.settings()
    with shared.files().open() as job:
        quantization = _find(job.recording, str(shared.input_path), levels)
        shared.repair(
            job,
            "dequantize",
            quantization,
            settings,
            consistent=consistent,
            source="detected" if levels is None else "given",
            decides={"step": quantization.step, "offset": quantization.offset},
        )


def _find(recording: Recording, path: str, levels: int | None) -> Quantization:
    """The quantizer of a recording: of so many levels, or as detected.

    Raises:
        SettingsError: The number of levels is out of range.
        InputError: The recording does not have these levels, or any that can be detected.
    """
    from dapcli.signal.quantization import MOST_DETECTED, detect_quantization, quantization_of

    if levels is not None:
        return quantization_of(levels, recording)
    quantization = detect_quantization(recording)
    if quantization is None:
        raise InputError(
            f"{path}: no quantization to {MOST_DETECTED} levels or fewer was detected; "
            "if it is quantized, give the number of levels with --levels"
        )
    return quantization
