"""Mangled files of every container, read: python benchmarks/fuzz.py --examples 10000 --seed 0.

Each is read in a process of its own, so that a crash, a hang or memory beyond reason of libsndfile is seen, too. A file
that is neither read nor refused in one line is kept in --keep, and named.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.audio import open_audio
from dapcli.errors import InputError

# Sizes that headers break at.
_SIZES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
_HEADER = 96
#: A file may take so many seconds, and bytes of memory besides what Python takes.
SECONDS, BYTES = 20, 1 << 27


def small_files() -> dict[str, bytes]:
    """A short recording in every container and subtype that libsndfile writes, and some with tags around them."""
    sound = 0.3 * np.random.default_rng(0).standard_normal((1_500, 2)).clip(-3, 3)
    files = {}
    # SD2 keeps a part in a file of its own, ._ in the current folder, which spoils later readings there.
    for container in sorted(soundfile.available_formats().keys() - {"SD2"}):
        for subtype in soundfile.available_subtypes(container):
            for rate, channels in ((16_000, 2), (8_000, 1), (48_000, 2), (44_100, 1)):
                buffer = io.BytesIO()
                try:
                    soundfile.write(buffer, sound[:, :channels], rate, subtype, format=container)
                except (soundfile.LibsndfileError, TypeError, ValueError):
                    continue
                files[f"{container}-{subtype}"] = buffer.getvalue()
                break
    tag = b"ID3\3\0\0\0\0\1\0" + bytes(128)
    files["ID3-FLAC"] = tag + files["FLAC-PCM_16"] + b"TAG" + bytes(125)
    files["ID3-MP3"] = tag + files["MP3-MPEG_LAYER_III"]
    return files


def mangle(data: bytes, rng: random.Random) -> bytes:
    """A file with one to four faults: bytes and sizes changed, stretches removed, doubled, zeroed, or the end cut."""
    mangled = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        reach = len(mangled) if rng.random() < 0.4 else min(len(mangled), _HEADER)
        start = rng.randrange(max(1, reach))
        stop = min(len(mangled), start + rng.choice((1, 2, 4, 16, 200)))
        fault = rng.randrange(7)
        if fault == 0:
            mangled[start:stop] = rng.randbytes(stop - start)
        elif fault == 1 and start < len(mangled):
            mangled[start] ^= 1 << rng.randrange(8)
        elif fault == 2:
            width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            size = rng.choice((*_SIZES, len(data))) % 256**width
            mangled[start : start + width] = size.to_bytes(width, order)
        elif fault == 3:
            del mangled[start:stop]
        elif fault == 4:
            mangled[start:start] = mangled[start:stop]
        elif fault == 5:
            mangled[start:stop] = bytes(stop - start)
        else:
            del mangled[rng.randrange(len(mangled) + 1) :]
    return bytes(mangled)


def example(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The name of a file, and the file mangled; the same for the same numbers."""
    rng = random.Random(f"{seed}-{number}")
    name = rng.choice(list(files))
    return name, mangle(files[name], rng)


def read_or_refuse(path: Path, *, accept_truncated: bool = False) -> str:
    """Read a file: ``read``, ``read with a note`` or ``refused``, in one line.

    Raises:
        AssertionError: What was read or told is wrong.
    """
    try:
        with open_audio(path, accept_truncated=accept_truncated) as file:
            samples = file.read(0, file.length)
            assert samples.shape == (file.channels, file.length)
            assert samples.size
            assert np.isfinite(samples).all()
            assert not any("\n" in note for note in file.notes)
            return "read with a note" if file.notes else "read"
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return "refused"


_OUTCOMES = ("read", "read with a note", "refused")


def _child(path: Path, accept_truncated: bool) -> int:
    """The number of the outcome; says on stdout what is wrong."""
    signal.alarm(SECONDS)
    used = _memory("VmSize")
    try:
        outcome = read_or_refuse(path, accept_truncated=accept_truncated)
        assert (taken := _memory("VmPeak") - used) < BYTES, f"{taken >> 20} MB of memory"
        return _OUTCOMES.index(outcome)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 100
    finally:
        ctypes.CDLL(None).fflush(None)


def _memory(name: str) -> int:
    """Bytes of address space that the process has, or has had at the most."""
    return int(re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())[1]) << 10  # type: ignore[index]


def examine(path: Path, *, accept_truncated: bool) -> tuple[str, float]:
    """The outcome of reading a file in a process of its own, and the seconds that it took."""
    with tempfile.TemporaryFile() as told:
        began = time.perf_counter()
        sys.stdout.flush()
        if not (pid := os.fork()):
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
            os._exit(_child(path, accept_truncated))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        took = time.perf_counter() - began
        told.seek(0)
        words = told.read().decode(errors="replace").strip().replace("\n", " | ")
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (f" after {SECONDS} s" if name == "SIGALRM" else ""), took
    return (f"wrong: {words}" if words or status >= len(_OUTCOMES) else _OUTCOMES[status]), took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first example")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder for the files that are at fault")
    options = parser.parse_args()
    files, counts, slowest = small_files(), Counter[str](), (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mangled"
        for number in range(options.first, options.first + options.examples):
            name, data = example(files, options.seed, number)
            path.write_bytes(data)
            outcome, took = examine(path, accept_truncated=number % 2 == 1)
            counts[outcome.split(":")[0]] += 1
            slowest = max(slowest, (took, f"{name} {number}"))
            if outcome not in _OUTCOMES:
                options.keep.mkdir(exist_ok=True)
                (options.keep / f"{options.seed}-{number}-{name}").write_bytes(data)
                print(f"{number} {name}: {outcome}", flush=True)
    print(f"{len(files)} files, {options.examples} examples: {dict(counts)}; slowest {slowest[0]:.2f} s, {slowest[1]}")
    return 0 if set(counts) <= set(_OUTCOMES) else 1


if __name__ == "__main__":
    sys.exit(main())
