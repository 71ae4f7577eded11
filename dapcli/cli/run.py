"""What all commands that fit have in common: what is checked and opened before the fit, and written after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dapcli.errors import OutputError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.audio.files import Content
    from dapcli.pipeline.result import Result
    from dapcli.pipeline.run import Progress
    from dapcli.pipeline.store import Store
    from dapcli.report.record import Record, Repair
    from dapcli.settings import Settings

#: What to call after every iteration.
OnStep = Callable[["Progress"], None]
#: Restores the recording, with what to call after every iteration and where to keep finished segments.
Restore = Callable[["OnStep | None", "Store | None"], "Result"]
#: The same for any task.
Fit = Callable[["OnStep | None", "Store | None"], "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a run has to write: the recordings, in the order of its outputs, their record, and their page if wanted."""

    recordings: Sequence[Recording]
    record: Record
    page: Callable[[], str]


@dataclass(frozen=True)
class Files:
    """What one run reads and writes, and what it tells.

    ``outputs`` are recordings of one format, by what people call them; ``partial`` is the folder of finished segments.
    ``others`` are files that are read, besides the input and its ``references``, and must not be overwritten.
    """

    input_path: Path
    outputs: Mapping[str, Path]
    record: Path
    partial: Path
    references: Sequence[Path]
    report: Path | None
    resume: bool
    overwrite: bool
    as_json: bool
    quiet: bool
    others: Sequence[Path] = ()

    @contextmanager
    def open(self) -> Iterator[Job]:
        """The recording and its references, once all paths are checked; this does not import torch.

        Raises:
            InputError: The recording or a reference cannot be read, or they do not match.
            SettingsError: The extension of the outputs stands for no format that can hold the recording.
            OutputError: A file cannot, or must not, be written.
        """
        from dapcli.audio import open_audio, open_matching, output_format
        from dapcli.audio.files import check_writable

        with ExitStack() as opened:
            recording = opened.enter_context(open_audio(self.input_path))
            container, subtype = output_format(next(iter(self.outputs.values())), recording)
            inputs = [self.input_path, *self.references, *self.others]
            written = [*self.outputs.values(), self.record, *([self.report] if self.report else [])]
            for path in written:
                check_writable(path, overwrite=self.overwrite)
                if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
                    raise OutputError(f"{path}: is an input; name another file")
            if len({path.resolve() for path in written}) < len(written):
                raise OutputError("what is restored, its .json and --report must be different files")
            references = [opened.enter_context(open_matching(path, recording)) for path in self.references]
            yield Job(self, recording, references, container, subtype)


def restoration_files(
    input_path: Path,
    output_path: Path,
    reference: Path | None,
    *,
    report: Path | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    others: Sequence[Path] = (),
) -> Files:
    """The files of a command that writes one OUT, with its .json beside it and segments in OUT.partial."""
    return Files(
        input_path,
        {"output": output_path},
        output_path.with_suffix(".json"),
        output_path.with_name(f"{output_path.name}.partial"),
        [reference] if reference else [],
        report,
        resume,
        overwrite,
        as_json,
        quiet,
        others,
    )


@dataclass(frozen=True)
class Job:
    """An open recording, its references if there are any, and the format to write in."""

    files: Files
    recording: Recording
    references: Sequence[Recording]
    container: str
    subtype: str

    @property
    def clean(self) -> Recording | None:
        """The first reference, which is the only one of a restoration."""
        return self.references[0] if self.references else None

    def tell(self, lines: Iterable[str]) -> None:
        """Print lines for people on stderr, unless they asked for quiet."""
        from rich.markup import escape

        from dapcli.report.console import make_console

        if not self.files.quiet:
            console = make_console()
            for line in lines:
                console.print(escape(line), soft_wrap=True)

    def restore(
        self,
        task: str,
        settings: Settings,
        decides: Mapping[str, Any],
        restore: Restore,
        repair: Repair | None = None,
    ) -> None:
        """Restore the recording into its one output; the rest is as in :meth:`run`."""
        from dapcli.report.record import build_record

        def fit(on_step: OnStep | None, store: Store | None) -> Outcome:
            result = restore(on_step, store)
            written = result.restored.as_file(self.container, self.subtype)
            record = build_record(
                task,
                result,
                input_path=self.files.input_path,
                output_path=self.files.outputs["output"],
                written=written,
                gain=written.gain,
                noisy=self.recording,
                reference=self.clean,
                repair=repair,
            )

            def page() -> str:
                from dapcli.report.page import render_page

                return render_page(record, result, self.recording, written, self.clean)

            return Outcome([written], record, page)

        self.run(settings, {"task": task, **decides}, fit, noise=repair is None)

    def run(self, settings: Settings, decides: Mapping[str, Any], fit: Fit, *, noise: bool) -> None:
        """Fit, write what comes out of it with its record and report, and say how it went.

        ``decides`` is what decides the finished segments besides the settings and the recording, as JSON can hold it;
        ``noise`` whether progress shows the level of some.
        """
        from dapcli.audio.files import write_files
        from dapcli.cli.resume import kept_segments
        from dapcli.report.console import fit_progress, make_console, print_summary
        from dapcli.report.record import to_json

        files, console = self.files, make_console()
        inputs = {"input": files.input_path}
        if settings.stop == "oracle":
            names = ["reference", *(f"reference_{number}" for number in range(2, len(files.references) + 1))]
            inputs |= dict(zip(names, files.references, strict=False))
        kept = kept_segments(
            files.partial,
            self.recording,
            settings,
            inputs,
            decides,
            resume=files.resume,
            overwrite=files.overwrite,
        )
        with kept as store, fit_progress(console, quiet=files.quiet, noise=noise) as on_step:
            outcome = fit(on_step, store)
            text = to_json(outcome.record)
            contents = {
                path: _encoded(recording)
                for path, recording in zip(files.outputs.values(), outcome.recordings, strict=True)
            }
            contents[files.record] = text.encode()
            if files.report:
                contents[files.report] = outcome.page().encode()
            write_files(contents)
        if files.as_json:
            typer.echo(text, nl=False)
        if not files.quiet:
            written = [*files.outputs.items(), ("record", files.record)]
            print_summary(console, outcome.record, [*written, ("report", files.report)] if files.report else written)


def _encoded(recording: Recording) -> Content:
    """What writes a recording, in its own format, into a stream."""
    from dapcli.audio import write_audio
    from dapcli.audio.recording import blocks

    return lambda stream: write_audio(
        stream,
        blocks(recording),
        rate=recording.rate,
        channels=recording.channels,
        subtype=recording.subtype,
        container=recording.format,
    )
