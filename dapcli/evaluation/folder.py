"""The folder that an evaluation writes: what is finished of it, and whose it is.

``configuration.json`` holds what decides all results. A method's result for a clip is in ``units/CLIP/METHOD.json``,
and what that was measured on in ``audio/CLIP``; the former appears last, and whole or not at all. So a run that was
killed goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dapcli.audio import Audio, Samples, encode
from dapcli.audio.files import claim, write_files
from dapcli.errors import OutputError, SettingsError
from dapcli.evaluation.clips import Clip
from dapcli.evaluation.methods import Method, key

#: A finished unit, as JSON holds it.
Record = dict[str, Any]

#: What recordings are called that no method made.
REFERENCE, INPUT = "reference", "input"
CONFIGURATION = "configuration.json"
# What evaluations write, and all that --overwrite removes.
_OURS = ("units/*/*.json", "audio/*/*.wav", "spectrograms/*/*.png", "results.*", "curves.csv", "*.svg", "index.html")


class Folder:
    """A folder of results, which ``open`` makes one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def open(self, configuration: Mapping[str, Any], *, overwrite: bool) -> Iterator[None]:
        """Make the folder, or take up the one of an earlier run with the same configuration, for as long as it lasts.

        Raises:
            OutputError: It cannot be made, holds other files, or another run writes there.
            SettingsError: It belongs to a run with another configuration.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; name a folder")
        if not self.path.absolute().parent.is_dir():
            raise OutputError(f"{self.path.parent}: no such folder; create it first")
        found = self._read(self.path / CONFIGURATION)
        if (
            found is None
            and self.path.is_dir()
            and any(not path.name.startswith(".dap-") for path in self.path.iterdir())
        ):
            raise OutputError(f"{self.path}: is not empty, and not of an evaluation; name another folder")
        wanted = json.loads(json.dumps(configuration))
        if found is not None and not overwrite and (differences := _differences(found, wanted)):
            raise SettingsError(
                f"{self.path}: belongs to an evaluation with {'; '.join(differences)}; repeat that one, "
                "name another folder, or start anew with --overwrite"
            )
        self._make(self.path)
        with claim(self.path):
            if found is not None and overwrite:
                self._clear()
            for part in self.path.rglob(".dap-*.part"):  # of a run that was killed while it wrote
                part.unlink(missing_ok=True)
            text = json.dumps(wanted, indent=2, allow_nan=False) + "\n"
            self.write({self.path / CONFIGURATION: text.encode()})
            yield

    def load(self, clip: Clip, method: Method) -> Record | None:
        """What a method made of a clip; None where that is not finished."""
        return self._read(self._unit(clip, method))

    def save(self, clip: Clip, method: Method, samples: Samples, rate: int, record: Mapping[str, Any]) -> None:
        """Keep an estimate ``[K, C, N]`` with its record, which makes the unit finished."""
        contents = self._audio(clip, key(method.name, method.oracle), samples, rate)
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        self.write({**contents, self._unit(clip, method): text.encode()})  # the record last

    def save_case(self, clip: Clip, references: Samples, observed: Samples, rate: int) -> None:
        """Keep the references ``[K, C, N]`` of a clip and its recording ``[C, N]``, unless they are there."""
        if not self.audio(clip.name, REFERENCE):
            inputs = self._audio(clip, INPUT, observed[None], rate)
            self.write({**inputs, **self._audio(clip, REFERENCE, references, rate)})

    def audio(self, clip: str, name: str) -> list[Path]:
        """The recordings of a method, or of ``REFERENCE`` or ``INPUT``, by source."""
        single = self.path / "audio" / clip / f"{name}.wav"
        return [single] if single.exists() else sorted(single.parent.glob(f"{name}_[0-9]*.wav"))

    @staticmethod
    def spectrogram(audio: Path) -> Path:
        """Where the picture of a recording is."""
        return audio.parents[2] / "spectrograms" / audio.parent.name / f"{audio.stem}.png"

    def write(self, contents: Mapping[Path, bytes]) -> None:
        """Write files in the folder, all or none of them.

        Raises:
            OutputError: The disk is full, or refuses for another reason.
        """
        for path in contents:
            self._make(path.parent)
        write_files(contents)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error

    def _unit(self, clip: Clip, method: Method) -> Path:
        return self.path / "units" / clip.name / f"{key(method.name, method.oracle)}.json"

    def _audio(self, clip: Clip, name: str, samples: Samples, rate: int) -> dict[Path, bytes]:
        folder = self.path / "audio" / clip.name
        names = [name] if len(samples) == 1 else [f"{name}_{number}" for number in range(1, len(samples) + 1)]
        return {folder / f"{each}.wav": encode(Audio(one, rate)) for each, one in zip(names, samples, strict=True)}

    def _clear(self) -> None:
        for pattern in _OURS:
            for path in self.path.glob(pattern):
                path.unlink()
        for folder in (*self.path.glob("*/*"), *self.path.glob("*")):
            with contextlib.suppress(OSError):  # what others have put there stays
                folder.rmdir()

    @staticmethod
    def _read(path: Path) -> Record | None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What another configuration has, such as ``seed 1 in place of 0``."""
    lines: list[str] = []
    for name in sorted({*found, *wanted}):
        there, here = found.get(name), wanted.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            lines += _differences(there, here, f"{prefix}{name}.")
        elif there != here:
            lines.append(f"{prefix}{name} {_in_words(there)} in place of {_in_words(here)}")
    return lines


def _in_words(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else "other than this"
