"""What all restorations of a file have in common: what is checked and opened before the fit, and written after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dapcli.errors import OutputError

if TYPE_CHECKING:
    from dapcli.audio import Recording
    from dapcli.files import Content
    from dapcli.report.record import Repair
    from dapcli.restore import Result
    from dapcli.settings import Settings
    from dapcli.store import Store
    from dapcli.task import Progress

#: Restores the recording, with what to call after every iteration and where to keep finished segments.
Restore = Callable[["Callable[[Progress], None] | None", "Store | None"], "Result"]


@dataclass(frozen=True)
class Files:
    """What one run reads and writes, besides OUT's .json, and what it tells.

    ``others`` are files that it reads and must not overwrite.
    """

    input_path: Path
    output_path: Path
    reference: Path | None
    report: Path | None
    resume: bool
    overwrite: bool
    as_json: bool
    quiet: bool
    others: tuple[Path, ...] = ()

    @contextmanager
    def open(self) -> Iterator[Job]:
        """The recording and its reference, once all paths are checked; this does not import torch.

        Raises:
            InputError: The recording or the reference cannot be read, or they do not match.
            SettingsError: OUT's extension stands for no format that can hold the recording.
            OutputError: A file cannot, or must not, be written.
        """
        from dapcli.audio import open_audio, open_matching, output_format
        from dapcli.files import check_writable

        with ExitStack() as opened:
            recording = opened.enter_context(open_audio(self.input_path))
            container, subtype = output_format(self.output_path, recording)
            inputs = [self.input_path, *([self.reference] if self.reference else []), *self.others]
            outputs = [self.output_path, self.record_path, *([self.report] if self.report else [])]
            for path in outputs:
                check_writable(path, overwrite=self.overwrite)
                if any(path.exists() and source.exists() and path.samefile(source) for source in inputs):
                    raise OutputError(f"{path}: is an input; name another file")
            if len({path.resolve() for path in outputs}) < len(outputs):
                raise OutputError("OUT, its .json and --report must be different files")
            clean = opened.enter_context(open_matching(self.reference, recording)) if self.reference else None
            yield Job(self, recording, clean, container, subtype)

    @property
    def record_path(self) -> Path:
        """Where the JSON record goes."""
        return self.output_path.with_suffix(".json")


@dataclass(frozen=True)
class Job:
    """An open recording, the clean one if there is a reference, and the format to write in."""

    files: Files
    recording: Recording
    clean: Recording | None
    container: str
    subtype: str

    def tell(self, lines: Iterable[str]) -> None:
        """Print lines for people on stderr, unless they asked for quiet."""
        from rich.markup import escape

        from dapcli.report.console import make_console

        if not self.files.quiet:
            console = make_console()
            for line in lines:
                console.print(escape(line), soft_wrap=True)

    def run(
        self,
        task: str,
        settings: Settings,
        decides: Mapping[str, Any],
        restore: Restore,
        repair: Repair | None = None,
    ) -> None:
        """Restore the recording, write it with its record and report, and say how it went.

        ``decides`` is what decides the finished segments besides the settings and the recording, as JSON can hold it.
        """
        from dapcli.audio import write_audio
        from dapcli.audio.recording import blocks
        from dapcli.cli.resume import kept_segments
        from dapcli.files import write_files
        from dapcli.report.console import fit_progress, make_console, print_summary
        from dapcli.report.record import build_record, to_json

        files, recording, subtype, container = self.files, self.recording, self.subtype, self.container
        console = make_console()
        inputs = {"input": files.input_path}
        if files.reference and settings.stop == "oracle":
            inputs["reference"] = files.reference
        kept = kept_segments(
            files.output_path,
            recording,
            settings,
            inputs,
            {"task": task, **decides},
            resume=files.resume,
            overwrite=files.overwrite,
        )
        with kept as store, fit_progress(console, quiet=files.quiet, noise=repair is None) as on_step:
            result = restore(on_step, store)
            written = result.restored.as_file(container, subtype)
            record = build_record(
                task,
                result,
                input_path=files.input_path,
                output_path=files.output_path,
                written=written,
                gain=written.gain,
                noisy=recording,
                reference=self.clean,
                repair=repair,
            )
            text = to_json(record)
            contents: dict[Path, Content] = {
                files.output_path: lambda stream: write_audio(
                    stream,
                    blocks(written),
                    rate=written.rate,
                    channels=written.channels,
                    subtype=subtype,
                    container=container,
                ),
                files.record_path: text.encode(),
            }
            if files.report:
                from dapcli.report.page import render_page

                contents[files.report] = render_page(record, result, recording, written, self.clean).encode()
            write_files(contents)
        if files.as_json:
            typer.echo(text, nl=False)
        if not files.quiet:
            names = ("output", "record", "report")
            print_summary(console, record, {name: str(path) for name, path in zip(names, contents, strict=False)})
