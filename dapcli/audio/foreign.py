"""Files that libsndfile cannot read: what they are, by their first bytes, and how to convert them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

#: Sound in formats that ffmpeg reads, by a pattern of the first bytes.
_SOUND = {
    rb".{4}ftypM4[AB]": "MPEG-4 audio (AAC or ALAC, .m4a)",
    rb".{4}ftypqt": "a QuickTime film (.mov)",
    rb".{4}ftyp3g": "3GP",
    rb".{4}ftyp": "MPEG-4 (.mp4)",
    rb".{4}(?:moov|mdat|wide)": "a QuickTime film (.mov)",
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "Windows Media (.wma, .wmv)",
    rb"\x1aE\xdf\xa3.{0,60}webm": "WebM",
    rb"\x1aE\xdf\xa3": "Matroska (.mka, .mkv)",
    rb"OggS.{24,300}\x7fFLAC": "FLAC in Ogg",
    rb"OggS.{24,300}Speex": "Speex in Ogg",
    rb"OggS.{24,300}(?:\x80theora|\x01video)": "a film in Ogg",
    rb"#!AMR": "AMR",
    rb"MAC ": "Monkey's Audio (.ape)",
    rb"wvpk": "WavPack",
    rb"TTA[12]": "True Audio (.tta)",
    rb"tBaK": "TAK",
    rb"OFR ": "OptimFROG",
    rb"DSD ": "DSD (.dsf)",
    rb"FRM8.{8}DSD": "DSD (.dff)",
    rb"MPCK|MP\+": "Musepack",
    rb"\x0b\x77": "Dolby Digital (AC-3)",
    rb".{4}\xf8\x72\x6f[\xba\xbb]": "Dolby TrueHD",
    rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80|\x1f\xff\xe8\x00|\xff\x1f\x00\xe8": "DTS",
    rb"\.RMF|\.ra\xfd": "RealMedia",
    rb"FLV\x01": "Flash video",
    rb"RIFF.{4}AVI ": "a film (.avi)",
    rb"\x00\x00\x01[\xba\xb3]": "an MPEG film",
    rb"G.{187}G.{187}G": "an MPEG transport stream",
    rb"\xff[\xf0\xf1\xf8\xf9]|ADIF": "AAC (.aac)",
    rb"\.SoX|XoS\.": "SoX's own format",
    rb"(?:[\xd0-\xdf].{32}){8}": "GSM 06.10",
}
_OTHER = {
    rb"$": "is empty: it has 0 bytes",
    rb"\x00+$": "holds nothing but zeros where its header should be",
    rb"\x89PNG": "is a PNG picture",
    rb"\xff\xd8\xff": "is a JPEG picture",
    rb"GIF8": "is a GIF picture",
    rb"RIFF.{4}WEBP": "is a WebP picture",
    rb"BM.{4}\x00{4}|II\*\x00|MM\x00\*": "is a picture",
    rb"%PDF": "is a PDF",
    rb"PK\x03\x04": "is a ZIP archive; unpack it first",
    rb"\x1f\x8b": "is compressed by gzip; unpack it first",
    rb"7z\xbc\xaf|Rar!": "is an archive; unpack it first",
    rb"MThd": "is MIDI, notes without sound; render it first",
    rb"\xef\xbb\xbf|\xff\xfe|\xfe\xff|[\t\n\r\x20-\x7e\x80-\xff]+$": "is a text file, no audio",
}
_LOOKED_AT = 512


def describe_foreign(path: Path) -> str:
    """What a file is that libsndfile does not know, and what to do; nothing if that is unknown."""
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    for pattern, name in _SOUND.items():
        if re.match(pattern, head, re.DOTALL):
            return f"is {name}, which dap cannot read; convert it first: {convert_line(path)}"
    return next((name for pattern, name in _OTHER.items() if re.match(pattern, head, re.DOTALL)), "")


def convert_line(path: Path) -> str:
    """The command that makes a WAV file of a file."""
    target = path.with_suffix(".wav")
    if target == path:
        target = path.with_name(f"{path.stem}-converted.wav")
    return f"ffmpeg -i {shlex.quote(str(path))} {shlex.quote(str(target))}"
