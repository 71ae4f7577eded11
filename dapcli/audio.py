"""Recordings: what is read, what is written, and what is kept in between.

Samples are float64 so that a 32-bit integer file comes back bit for bit when nothing changes it.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from dapcli.errors import InputError, OutputError, SettingsError
from dapcli.settings import MAX_RATE, MIN_RATE

Samples = NDArray[np.float64]


# Formats whose name is not their extension.
_FORMATS = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "WAVE": "WAV"}
# Formats that need more than one file, or do not say what is in theirs.
_INCOMPLETE_FORMATS = ("RAW", "SD2")
_WAV_FAMILY = ("WAV", "WAVEX", "RF64")
# Subtypes that mean the same samples in every container; the others pad, or differ in quality.
_PORTABLE_SUBTYPES = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_FINER_THAN_16_BITS = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")
# Subtypes that hold samples past full scale.
_FLOAT_SUBTYPES = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")
# How libsndfile logs the size of a data chunk that does not match its file: WAV, AIFF, AU, W64 and SVX; RF64.
_DATA_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|BODY)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_DS64_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
# How it logs that a VOC or MAT4 file ends too early.
_ENDS_EARLY = re.compile(r"[Ss]eems to be (?:a )?truncated")
_UNKNOWN_LENGTH = 0x7FFF_0000
# A polyphase resampler keeps one filter per output phase: this many coefficients are 200 MB.
_MAX_RESAMPLER_COEFFICIENTS = 50_000_000
_RESAMPLER_WIDTH = 64
# Samples handed to libsndfile at once: its Vorbis encoder overflows the stack when given minutes.
_BLOCK = 65_536
# The last page of an Ogg file lies within so many bytes: a page has 65,307 at the most, and tags may follow.
_OGG_TAIL = 100_000
# The chunk of peaks, where there is one, begins within so many bytes.
_HEADER = 128


@dataclass(frozen=True)
class Audio:
    """A recording.

    ``samples`` is ``[C, N]`` with full scale at 1, ``rate`` is in Hz; ``subtype`` and ``format`` are
    libsndfile's names for the sample encoding and the container.
    """

    samples: Samples
    rate: int
    subtype: str = "FLOAT"
    format: str = "WAV"

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.samples.shape[0])

    @property
    def length(self) -> int:
        """Number of samples N per channel."""
        return int(self.samples.shape[1])

    def with_samples(self, samples: Samples) -> Audio:
        """The same recording with other samples ``[C, N]``."""
        return replace(self, samples=samples)

    def as_file(self, container: str, subtype: str) -> Audio:
        """The same recording in another format and subtype."""
        return replace(self, format=container, subtype=subtype)


def read_audio(path: Path) -> Audio:
    """Read any file that libsndfile reads.

    Raises:
        InputError: The file is missing, not audio, truncated or empty, has samples that are not finite, or a
            rate outside 8 to 192 kHz.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; name one audio file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is not a regular file; write what it delivers to a file first")
    try:
        # As bytes, for names of files need not be UTF-8; Windows has no such names.
        with soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path)) as file:
            expected = file.frames
            truncated = _is_cut_off(file.extra_info) or (file.format == "OGG" and not _has_last_page(path))
            samples = file.read(dtype="float64", always_2d=True).T
            rate, subtype, container = int(file.samplerate), str(file.subtype), str(file.format)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:  # the latter two: RAW, XI
        reason = str(error).split(":")[-1].strip().rstrip(".")
        raise InputError(f"{path}: cannot be read as audio ({reason})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if truncated or samples.shape[1] < expected:
        raise InputError(f"{path}: is truncated: part of its samples is missing; copy it again")
    if samples.shape[1] == 0:
        raise InputError(f"{path}: holds no samples")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds samples that are NaN or infinite; repair it first")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{path}: {rate} Hz is outside {MIN_RATE} to {MAX_RATE} Hz; resample it first")
    return Audio(np.ascontiguousarray(samples), rate, subtype, container)


def read_matching(path: Path, other: Audio) -> Audio:
    """Read a recording that is to be compared with another, sample by sample.

    Raises:
        InputError: It cannot be read, or has another rate, length or number of channels.
    """
    audio = read_audio(path)
    if (audio.rate, audio.samples.shape) != (other.rate, other.samples.shape):
        raise InputError(
            f"{path}: has {_shape(audio)}, the recording to compare it with {_shape(other)}; they must match"
        )
    return audio


def _shape(audio: Audio) -> str:
    return f"{_channels(audio)} of {audio.length} samples at {audio.rate} Hz"


def _channels(audio: Audio) -> str:
    return "1 channel" if audio.channels == 1 else f"{audio.channels} channels"


def _is_cut_off(log: str) -> bool:
    """Whether libsndfile logged that a file ends before the data that it announces (it then reads what is there).

    Programs that write to a pipe cannot know the length and announce the largest one; that is no damage.
    """
    sizes = [(int(there), int(announced)) for announced, there in _DATA_SIZE.findall(log)]
    frames = [(int(there), int(announced)) for there, announced in _DS64_FRAMES.findall(log)]
    return (
        any(there < announced < _UNKNOWN_LENGTH for there, announced in sizes)
        or any(there < announced for there, announced in frames)
        or _ENDS_EARLY.search(log) is not None
    )


def _has_last_page(path: Path) -> bool:
    """Whether an Ogg file ends with the whole page that is marked as its last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_TAIL))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or not page[5] & 4:
        return False
    sizes = page[27 : 27 + page[26]]
    return len(sizes) == page[26] and len(page) >= 27 + len(sizes) + sum(sizes)


def output_format(path: Path, source: Audio) -> tuple[str, str]:
    """Format and subtype to write ``path`` in: the format by its extension, the source's subtype where that holds it.

    Raises:
        SettingsError: libsndfile cannot write files with this extension, or not at this rate or channel count.
    """
    extension = path.suffix.removeprefix(".").upper()
    name = _FORMATS.get(extension, extension)
    if name not in soundfile.available_formats() or name in _INCOMPLETE_FORMATS:
        raise SettingsError(f"{path}: unknown audio extension {path.suffix!r}; use .wav, .flac, .ogg, .aiff or .mp3")
    if name == "WAV" and source.format in _WAV_FAMILY:
        name = source.format
    candidates = [source.subtype] if name == source.format or source.subtype.startswith(_PORTABLE_SUBTYPES) else []
    if source.subtype in _FINER_THAN_16_BITS:
        candidates.append("PCM_24")  # for the others this would only be larger
    candidates.append(soundfile.default_subtype(name))
    if extension == "OPUS":
        candidates = ["OPUS"]
    for subtype in candidates:
        if subtype and soundfile.check_format(name, subtype) and _holds(name, subtype, source):
            return name, subtype
    raise SettingsError(
        f"{path}: libsndfile cannot write {_channels(source)} at {source.rate} Hz as {name}; choose another extension"
    )


def _holds(container: str, subtype: str, source: Audio) -> bool:
    """Whether a format keeps the source's rate and channels, which libsndfile only tells on writing."""
    silence = Audio(np.zeros((source.channels, 64)), source.rate, subtype, container)
    try:
        data = encode(silence)
        if container == "MP3":
            return True  # refused above, or kept; its decoder cannot read anything so short
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return (file.samplerate, file.channels) == (source.rate, source.channels)
    except (OutputError, soundfile.LibsndfileError, TypeError):
        return False


def fit_full_scale(samples: Samples, subtype: str) -> tuple[Samples, float]:
    """Scale samples ``[C, N]`` by one gain so that an integer subtype holds them; the gain is 1 if it already does."""
    peak = float(np.abs(samples).max(initial=0.0))
    if subtype in _FLOAT_SUBTYPES or peak <= 1.0:
        return samples, 1.0
    return samples / peak, 1.0 / peak


def encode(audio: Audio) -> bytes:
    """The bytes of an audio file, in the recording's own format and subtype.

    Raises:
        OutputError: libsndfile refuses the combination of format, rate and channels.
    """
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", audio.rate, audio.channels, subtype=audio.subtype, format=audio.format
        ) as file:
            for start in range(0, audio.length, _BLOCK):
                file.write(audio.samples[:, start : start + _BLOCK].T)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise OutputError(
            f"libsndfile cannot write {_channels(audio)} at {audio.rate} Hz as {audio.format}/{audio.subtype}; "
            "choose another extension"
        ) from error
    data = buffer.getvalue()
    peak = data.find(b"PEAK", 0, _HEADER)
    if peak < 0 or audio.subtype not in ("FLOAT", "DOUBLE"):
        return data
    # The chunk of peaks holds the time of writing, and the same samples would make another file every second.
    return data[: peak + 12] + bytes(4) + data[peak + 16 :]


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Resample ``[C, N]`` from ``rate`` to ``new_rate`` Hz, giving ``ceil(N * new_rate / rate)`` samples.

    Raises:
        SettingsError: The two rates have so little in common that the filter would not fit in memory.
    """
    if rate == new_rate:
        return samples
    divisor = math.gcd(rate, new_rate)
    if (new_rate // divisor) * (rate // divisor + 2 * _RESAMPLER_WIDTH) > _MAX_RESAMPLER_COEFFICIENTS:
        raise SettingsError(f"cannot resample {rate} to {new_rate} Hz; choose rates with a larger common divisor")
    import torch  # deferred: reading and checking files must not wait for it
    from torchaudio.functional import resample as polyphase

    resampled = polyphase(
        torch.from_numpy(samples),
        rate,
        new_rate,
        lowpass_filter_width=_RESAMPLER_WIDTH,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )
    return np.asarray(resampled.numpy(), dtype=np.float64)
