"""Recordings: what is read, what is written, and what is kept in between.

Samples are float64 so that a 32-bit integer file comes back bit for bit when nothing changes it.
"""

from dapcli.audio.reading import AudioFile, open_audio, open_matching, read_audio
from dapcli.audio.recording import Audio, Recording, Samples, resample
from dapcli.audio.writing import encode, full_scale_gain, output_format, write_audio

__all__ = [
    "Audio",
    "AudioFile",
    "Recording",
    "Samples",
    "encode",
    "full_scale_gain",
    "open_audio",
    "open_matching",
    "output_format",
    "read_audio",
    "resample",
    "write_audio",
]
