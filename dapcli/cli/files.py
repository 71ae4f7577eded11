"""The files of one run: what is checked and opened before torch is imported, and written after the fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import dapcli
from dapcli.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.audio.files import Content
    from dapcli.pipeline.result import Estimates
    from dapcli.settings import Settings
    from dapcli.tasks.problem import Problem

# The name of the record, and of the folder of finished segments, where there are several outputs.
_FOLDER_RECORD = "separation"


@dataclass(frozen=True)
class Run:
    """The files of a run.

    ``outputs`` are recordings of one ``container`` and ``subtype``, by what people call them; ``partial`` is the folder
    of finished segments. The recording and the references are open.
    """

    input_path: Path
    recording: Recording
    references: Mapping[Path, Recording]
    outputs: Mapping[str, Path]
    container: str
    subtype: str
    record: Path
    partial: Path
    report: Path | None

    @property
    def written(self) -> list[tuple[str, Path]]:
        """All files that the run writes, by what people call them."""
        report = [("report", self.report)] if self.report else []
        return [*self.outputs.items(), ("record", self.record), *report]

    def fingerprint(self, task: str, problem: Problem[Any], settings: Settings) -> dict[str, Any]:
        """All that decides the finished segments, as JSON can hold it."""
        from dapcli.audio.files import digest

        inputs = {"input": self.input_path}
        if settings.stop == "oracle":
            numbered = enumerate(self.references, 1)
            inputs |= {f"reference_{number}" if number > 1 else "reference": path for number, path in numbered}
        digests = {name: digest(path) for name, path in inputs.items()}
        return {"version": dapcli.__version__, "task": task, **problem.fingerprint, **asdict(settings), **digests}

    def write(self, estimates: Estimates, record: str, page: str | None) -> None:
        """Write the estimates with their record and their page, all or nothing.

        Raises:
            OutputError: The disk is full, or refuses for another reason.
        """
        from dapcli.audio.files import write_files

        contents: dict[Path, Content] = {
            path: partial(_encode, each) for path, each in zip(self.outputs.values(), estimates, strict=True)
        }
        contents[self.record] = record.encode()
        if self.report and page:
            contents[self.report] = page.encode()
        write_files(contents)


@contextmanager
def open_run(
    input_path: Path,
    output_path: Path,
    names: Sequence[str] = (),
    *,
    extension: str | None = None,
    references: Sequence[Path] = (),
    report: Path | None = None,
    others: Sequence[Path] = (),
    overwrite: bool = False,
) -> Iterator[Run]:
    """The files of a run, once all paths are checked; this does not import torch.

    Args:
        input_path: The recording.
        output_path: What to restore it into; with ``names``, the folder for the files of that name.
        names: The sources of a separation.
        extension: The format of those, by default that of the recording.
        references: The recording, or its sources, as they were.
        report: The page to write.
        others: Further files that are read, and must not be overwritten.
        overwrite: Replace files.

    Raises:
        InputError: The recording or a reference cannot be read, or they do not match.
        SettingsError: There are too many or too few references, or the extension of the outputs stands for no format
            that can hold the recording.
        OutputError: A file cannot, or must not, be written.
    """
    from dapcli.audio import open_audio, open_matching, output_format
    from dapcli.audio.files import check_writable, output_folder

    if references and len(references) != max(len(names), 1):
        wanted = f"{len(names)} sources; give one for each" if names else "one recording; give one"
        raise SettingsError(f"--reference was given {len(references)} times for {wanted}")
    if len(set(references)) < len(references):
        raise SettingsError("--reference names one file twice; give each source its own")
    if names:
        if _FOLDER_RECORD in map(str.casefold, names):
            raise SettingsError(f"--names: {_FOLDER_RECORD} is the name of the record; choose another")
        suffix = input_path.suffix if extension is None else f".{extension.removeprefix('.')}"
        outputs = {name: output_path / f"{name}{suffix}" for name in names}
        record, partial_folder = (output_path / f"{_FOLDER_RECORD}.{kind}" for kind in ("json", "partial"))
    else:
        outputs = {"output": output_path}
        record, partial_folder = output_path.with_suffix(".json"), output_path.with_name(f"{output_path.name}.partial")
    with output_folder(output_path) if names else nullcontext(), ExitStack() as opened:
        recording = opened.enter_context(open_audio(input_path))
        container, subtype = output_format(next(iter(outputs.values())), recording)
        written = [*outputs.values(), record, *([report] if report else [])]
        for path in written:
            check_writable(path, overwrite=overwrite)
            inputs = (input_path, *references, *others)
            if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
                raise OutputError(f"{path}: is an input; name another file")
        if len({path.resolve() for path in written}) < len(written):
            raise OutputError("what is restored, its .json and --report must be different files")
        clean = {path: opened.enter_context(open_matching(path, recording)) for path in references}
        yield Run(input_path, recording, clean, outputs, container, subtype, record, partial_folder, report)


def _encode(recording: Recording, stream: BinaryIO) -> None:
    """Write a recording into a stream, in its own format."""
    from dapcli.audio import write_audio
    from dapcli.audio.recording import blocks

    write_audio(
        stream,
        blocks(recording),
        rate=recording.rate,
        channels=recording.channels,
        subtype=recording.subtype,
        container=recording.format,
    )
