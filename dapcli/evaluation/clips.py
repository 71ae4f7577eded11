"""Clean clips: which files there are, which of them are drawn, and which stretch of each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from dapcli.audio import Audio, Samples, open_audio, open_matching, read_audio
from dapcli.audio.files import digest
from dapcli.audio.listing import list_files
from dapcli.errors import InputError

# The least power of a drawn stretch relative to its file's: stretches of silence say nothing about a method.
_LEAST_POWER = 0.1


@dataclass(frozen=True)
class Clip:
    """A stretch of one clean file, or of one for every source of a mixture, by the SHA-256 of each.

    ``paired`` says that it is the same stretch of all files, a clean one and what is to be compared with it.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    paired: bool

    @property
    def name(self) -> str:
        """Its name, which is fit for a folder, and another one for every content: it has the digests' beginning."""
        stems = [re.sub("[^A-Za-z0-9_-]+", "_", path.stem)[:24] for path in self.paths]
        return "+".join(f"{stem}-{each[:8]}" for stem, each in zip(stems, self.digests, strict=True))

    def generator(self, seed: int) -> np.random.Generator:
        """Random numbers that depend on nothing but the seed and what the files hold."""
        return np.random.default_rng([seed, *(int(each, 16) for each in self.digests)])

    def read(self, seconds: float | None, rng: np.random.Generator) -> list[Audio]:
        """The stretch of every file, ``[C, N]``, of so many seconds, drawn where there is sound; all of it with None.

        Raises:
            InputError: A file cannot be read, or is too short by now.
        """
        files = [read_audio(path) for path in self.paths]
        if seconds is None:
            return files
        stretches = cycle(_draw(file, seconds, rng) for file in (files[:1] if self.paired else files))
        return [file.with_samples(file.samples[:, stretch]) for file, stretch in zip(files, stretches, strict=False)]


@dataclass(frozen=True)
class Drawn:
    """Clips that were drawn, how many files were too short, and why others cannot be read, by path."""

    clips: tuple[Clip, ...]
    skipped: int
    unreadable: dict[str, str]


def collect(paths: Sequence[Path], *, outside: Path) -> list[Path]:
    """The files that files, folders and manifests stand for, each once.

    ``outside`` is where results go. Raises ``InputError`` as :func:`dapcli.audio.listing.list_files` does.
    """
    return list({each.path.resolve(): each.path for each in list_files(paths, outside=outside)}.values())


def pair(noisy: Sequence[Path], clean: Sequence[Path]) -> dict[Path, Path]:
    """The noisy file of each clean one that has one: of the same name, whose extension may differ.

    Raises:
        InputError: A noisy file has no clean one, or several.
    """
    named: dict[str, list[Path]] = {}
    for path in clean:
        for name in dict.fromkeys((path.name, path.stem)):
            named.setdefault(name, []).append(path)
    pairs: dict[Path, Path] = {}
    for path in noisy:
        found = named.get(path.name) or named.get(path.stem) or []
        if not found:
            raise InputError(f"{path}: no clean file is called {path.stem}; add that, or leave this one out")
        if found[0] in pairs or len(found) > 1:
            others = [pairs[found[0]], path] if found[0] in pairs else found
            raise InputError(f"{' and '.join(map(str, others))} have one name; of a pair's files each needs its own")
        pairs[found[0]] = path
    return pairs


def draw_clips(
    groups: Sequence[Sequence[Path]],
    seconds: float | None,
    count: int | None,
    seed: int,
    pairs: Mapping[Path, Path] | None = None,
) -> Drawn:
    """Clips of so many seconds, ``count`` of them at the most: of one group, or mixtures with a source of each.

    Every file has its own place in the draw, by its name: more clips are the same ones and others. With None for
    seconds, clips are whole files. ``pairs`` adds to every clean file of one group its noisy one.

    Raises:
        InputError: None is long enough.
    """
    skipped = 0
    unreadable: dict[str, str] = {}
    drawn: list[list[Path]] = []
    for group in groups:
        chosen: list[Path] = []
        places = {
            path: hashlib.sha256(f"{seed} {path.name}".encode(errors="surrogateescape")).digest() for path in group
        }
        for path in sorted(group, key=lambda path: (places[path], path)):
            if len(chosen) == count:
                break
            try:
                with open_audio(path) as file:
                    long_enough = seconds is None or file.length >= round(seconds * file.rate)
                    if pairs is not None:
                        open_matching(pairs[path], file).close()
            except InputError as error:
                unreadable[str(path)] = str(error)
                continue
            if long_enough:
                chosen.append(path)
            else:
                skipped += 1
        drawn.append(chosen)
    if pairs is not None:
        drawn.append([pairs[path] for path in drawn[0]])
    found = [Clip(paths, tuple(map(digest, paths)), pairs is not None) for paths in zip(*drawn, strict=False)]
    clips = {clip.name: clip for clip in found}  # of one content there is one
    if not clips:
        reason = next(iter(unreadable.values()), f"no clip is {seconds:g} s long; choose a shorter --duration")
        raise InputError(reason)
    return Drawn(tuple(sorted(clips.values(), key=lambda clip: clip.name)), skipped, unreadable)


def _draw(audio: Audio, seconds: float, rng: np.random.Generator) -> slice:
    """A stretch of so many seconds that is not silent."""
    size = round(seconds * audio.rate)
    if audio.length < size:
        raise InputError(f"the clip is shorter than {seconds:g} s by now; start again with --overwrite")
    start = draw_start(audio.samples, size, rng)
    return slice(start, start + size)


def draw_start(samples: Samples, size: int, rng: np.random.Generator, *, margin: int = 0) -> int:
    """The start of a stretch of ``size`` samples of ``[C, N]`` with sound in it, a margin away from both ends."""
    energy = np.concatenate([[0.0], np.cumsum(np.mean(samples**2, axis=0))])
    powers = (energy[size:] - energy[:-size])[margin : samples.shape[1] - size - margin + 1] / size
    starts = np.flatnonzero(powers >= _LEAST_POWER * energy[-1] / samples.shape[1])
    # Only within a margin all may be quiet: half of the power is in the loudest stretch without one.
    return margin + int(rng.choice(starts) if starts.size else powers.argmax())
