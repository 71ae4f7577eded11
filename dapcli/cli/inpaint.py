"""``dap inpaint``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dapcli.cli.repair import Shared, with_shared
from dapcli.errors import InputError, SettingsError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.signal.gaps import Gaps

# Of more gaps than this only the first are printed.
_PRINTED = 20
_BY_HAND = "give gaps with --gap START:END, in seconds, or with --mask FILE"


@with_shared
def inpaint(
    shared: Shared,
    gap: Annotated[
        list[str] | None,
        typer.Option("--gap", metavar="START:END", help="Missing stretch in seconds, or 8000n:8960n; repeatable."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Table of gaps (.csv, .tsv, .txt), or audio that is zero where samples miss."),
    ] = None,
    detect: Annotated[bool, typer.Option("--detect", help="Find dropouts: runs of one and the same value.")] = False,
    min_gap: Annotated[
        float | None,
        typer.Option("--min-gap", metavar="SECONDS", help="Shortest dropout that --detect finds (0.005)."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the gaps and stop; writes nothing.")] = False,
    keep_known: Annotated[
        bool, typer.Option("--keep-known/--refit-known", help="Leave known samples as they are, bit by bit, or not.")
    ] = True,
) -> None:
    """Fill the gaps of one recording.

    They are given with --gap, read with --mask or found with --detect. Writes OUT with the input's rate, channels,
    subtype and length, and beside it OUT with the suffix .json. Segments without gaps are copied.
    """
    settings = shared.settings()
    if min_gap is not None and not detect:
        raise SettingsError("--min-gap says what --detect finds; add --detect or leave it out")
    sources = [name for name, given in (("--gap", gap), ("--mask", mask), ("--detect", detect)) if given]
    if len(sources) > 1:
        raise SettingsError(f"{' and '.join(sources)} both say what is missing; use one of them")
    if not sources:
        raise InputError(f"nothing says which samples are missing; {_BY_HAND}, or add --detect")

    with shared.files(*([mask] if mask else [])).open() as job:
        from dapcli.signal.gaps import describe, list_intervals, warn_of_long

        gaps, notes = _find(job.recording, shared.input_path, gap, mask, min_gap)
        lines = describe(gaps, job.recording.rate)
        if len(lines) > _PRINTED:
            lines = [*lines[:_PRINTED], f"and {len(lines) - _PRINTED} more"]
        notes += warn_of_long(gaps, job.recording)
        job.tell([*(f"gap: {line}" for line in lines), *(f"note: {note}" for note in notes)])
        intervals = list_intervals(gaps)
        if dry_run:
            if shared.as_json:
                found = {"task": "inpaint", "input": str(shared.input_path), "gaps": intervals, "notes": notes}
                typer.echo(json.dumps(found, indent=2))
            return

        from dapcli.signal.missing import Missing

        shared.repair(
            job,
            "inpaint",
            Missing(gaps),
            settings,
            consistent=keep_known,
            source="given" if gap else "mask" if mask else "detected",
            decides={"gaps": intervals},
            notes=notes,
        )


def _find(
    recording: Recording, path: Path, texts: list[str] | None, mask: Path | None, min_gap: float | None
) -> tuple[Gaps, list[str]]:
    """The gaps of a recording out of the one source that was given, and notes.

    Raises:
        SettingsError: A gap, or ``min_gap``, is none.
        InputError: There are no gaps, or they do not go with the recording.
    """
    from dapcli.signal import gaps, gaps_detection

    if texts:
        return gaps.make_gaps([gaps.parse_gap(text, recording.rate) for text in texts], recording)
    if mask:
        found, notes = gaps.read_mask(mask, recording)
        if not found:
            raise InputError(f"{mask}: nothing is missing by this mask; give another, or gaps with --gap START:END")
        return found, notes
    found, notes = gaps_detection.detect_gaps(recording, gaps_detection.DEFAULT_MIN_GAP if min_gap is None else min_gap)
    if not found:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(f"{path}: no gaps were detected{reasons}; {_BY_HAND}")
    return found, notes
