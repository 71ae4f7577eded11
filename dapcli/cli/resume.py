"""What an interrupted run leaves, and how the next one goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dapcli
from dapcli.audio.files import digest
from dapcli.errors import InterruptedRunError, OutputError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.pipeline.store import Store
    from dapcli.settings import Settings


@contextmanager
def kept_segments(
    folder: Path,
    recording: Recording,
    settings: Settings,
    inputs: Mapping[str, Path],
    run: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[Store | None]:
    """A store for the segments of a long recording in a folder; None for a recording of one segment.

    ``inputs`` are the files that decide the segments, ``run`` is what else does besides the settings. The folder is
    removed when all went well, and kept with every other end if it holds finished segments.

    Raises:
        OutputError: The folder is there from an interrupted run, and neither ``resume`` nor ``overwrite`` is true.
        SettingsError: It belongs to another run.
        InterruptedRunError: In place of KeyboardInterrupt, when segments were kept.
    """
    from dapcli.pipeline.run import plan
    from dapcli.pipeline.store import FolderStore

    count = len(plan(recording, settings))
    if folder.exists() and not resume:
        if not overwrite:
            raise OutputError(
                f"{folder}: was left by an interrupted run; add --resume to go on from there, "
                "or --overwrite to start again"
            )
        FolderStore.remove(folder)
    if count == 1:
        yield None
        return
    digests = {name: digest(path) for name, path in inputs.items()}
    store = FolderStore(folder, {"version": dapcli.__version__, **run, **asdict(settings), **digests})
    try:
        yield store
    except BaseException as error:
        if not len(store):
            store.remove(folder)
        elif isinstance(error, KeyboardInterrupt):
            raise InterruptedRunError(
                f"interrupted; {len(store)} of {count} segments are kept in {folder}; "
                "repeat the command with --resume to go on, or delete that folder"
            ) from None
        raise
    store.remove(folder)
