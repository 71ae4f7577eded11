"""The files of one run: what is checked and opened before torch is imported, and written after the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dapcli
from dapcli.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.audio.files import Content
    from dapcli.cli.task import TaskCommand
    from dapcli.pipeline.result import Estimates
    from dapcli.settings import Settings
    from dapcli.tasks.options import TaskOptions
    from dapcli.tasks.problem import Problem

# The name of the record, and of the folder of finished segments, where there are several outputs.
_SOURCES = "separation"


@dataclass(frozen=True)
class Run:
    """The files of a run; the recording and its references are open.

    ``outputs`` are recordings of one ``container`` and ``subtype``, by what people call them; ``written`` are all files
    that are written. ``partial`` is the folder of finished segments.
    """

    input_path: Path
    recording: Recording
    references: Mapping[Path, Recording]
    outputs: Mapping[str, Path]
    container: str
    subtype: str
    written: Sequence[tuple[str, Path]]
    partial: Path

    def fingerprint(self, task: str, problem: Problem[Any], settings: Settings) -> dict[str, Any]:
        """All that decides the finished segments, as JSON can hold it."""
        from dapcli.audio.files import digest

        inputs = {"input": self.input_path}
        if settings.stop == "oracle":
            inputs |= {f"reference_{number}": path for number, path in enumerate(self.references, 1)}
        digests = {name: digest(path) for name, path in inputs.items()}
        return {"version": dapcli.__version__, "task": task, **problem.fingerprint, **asdict(settings), **digests}

    def write(self, estimates: Estimates, record: str, page: str) -> None:
        """Write the estimates, their record and their page, if there is to be one: all of them or none.

        Raises:
            OutputError: The disk is full, or refuses for another reason.
        """
        from dapcli.audio import write_audio
        from dapcli.audio.files import write_files

        contents: list[Content] = [partial(write_audio, recording=each) for each in estimates]
        contents += [record.encode(), page.encode()]
        write_files({path: content for (_, path), content in zip(self.written, contents, strict=False)})


@contextmanager
def open_run(command: TaskCommand, options: TaskOptions, names: Sequence[str]) -> Iterator[Run]:
    """The files of a run, once all paths are checked; this does not import torch.

    ``names`` are those of the sources, for which OUT is a folder; there are none for a restoration.

    Raises:
        InputError: The recording or a reference cannot be read, or they do not match.
        SettingsError: There are too many or too few references, or the extension of the outputs stands for no format
            that can hold the recording.
        OutputError: A file cannot, or must not, be written.
    """
    from dapcli.audio import open_audio, open_matching, output_format
    from dapcli.audio.files import check_writable, output_folder

    source, target, references = command.input_path, command.output_path, command.reference
    outputs = {"output": target}
    record, folder = (target.parent / name for name in (f"{target.stem}.json", f"{target.name}.partial"))
    if names:
        if _SOURCES in map(str.casefold, names):
            raise SettingsError(f"--names: {_SOURCES} is the name of the record; choose another")
        suffix = source.suffix if options.extension is None else f".{options.extension.removeprefix('.')}"
        outputs = {name: target / f"{name}{suffix}" for name in names}
        record, folder = target / f"{_SOURCES}.json", target / f"{_SOURCES}.partial"
    if references and len(references) != len(outputs):
        raise SettingsError(f"--reference: give one for each output; {len(references)} were given for {len(outputs)}")
    if len(set(references)) < len(references):
        raise SettingsError("--reference names one file twice; give each source its own")
    written = [*outputs.items(), ("record", record), *([("report", command.report)] if command.report else [])]
    with output_folder(target) if names else nullcontext(), ExitStack() as opened:
        recording = opened.enter_context(open_audio(source))
        container, subtype = output_format(next(iter(outputs.values())), recording)
        for _, path in written:
            check_writable(path, overwrite=command.overwrite)
            inputs = (source, *references, *options.files)
            if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
                raise OutputError(f"{path}: is an input; name another file")
        if len({path.resolve() for _, path in written}) < len(written):
            raise OutputError("what is restored, its .json and --report must be different files")
        clean = {path: opened.enter_context(open_matching(path, recording)) for path in references}
        yield Run(source, recording, clean, outputs, container, subtype, written, folder)
