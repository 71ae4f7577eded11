"""Metadata: what files hold beside samples, read from one and written into another as far as that can hold it.

Chunks and blocks go into a file of the same family as they are, for no task moves samples. Texts, by the names that
they have in Vorbis comments, and pictures go from any family into any other.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mutagen import apev2, id3
from mutagen._vorbis import is_valid_key
from mutagen.flac import FLAC, Picture
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis

from dapcli.audio.chunks import LAYOUTS, Layout, Source, append, chunks, layout_of
from dapcli.audio.contents import Pieces
from dapcli.audio.headers import without_tags
from dapcli.audio.recording import Recording

# Formats whose chunks go into one another as they are; all others are families of their own.
_FAMILIES = {"WAV": "RIFF", "WAVEX": "RIFF", "RF64": "RIFF"}
# Families to whose files chunks can be added; in others libsndfile takes what follows the samples for more of them.
_WITH_CHUNKS = ("RIFF", "AIFF", "CAF")
_WITH_ID3 = ("RIFF", "AIFF", "MP3")
_WITH_PICTURES = (*_WITH_ID3, "FLAC", "OGG")
_WITH_TAGS = (*_WITH_PICTURES, "CAF")
# Chunks that hold samples or nothing, or are about the samples as they were.
_SKIPPED = re.compile(
    b"fmt |data|fact|ds64|PEAK|JUNK|junk|PAD |FLLR|levl|COMM|SSND|FVER|VHDR|BODY|desc|pakt|kuki|free|peak|ovvw|MD5 "
)
# Chunks in the words of people.
_WORDS = {b"cue ": "cue points", b"adtl": "labels of cue points", b"smpl": "loops", b"inst": "instrument"}
_WORDS |= {b"MARK": "markers", b"INST": "loops", b"COMT": "comments", b"chan": "speakers", b"CHAN": "speakers"}
# Chunks of texts, which are among the tags.
_TEXTS = (b"id3 ", b"ID3 ", b"info", b"NAME", b"AUTH", b"(c) ", b"ANNO")
# Names of texts by those in Vorbis comments, in the chunks of a family and in ID3.
_RIFF = (
    "TITLE:INAM,ARTIST:IART,ALBUM:IPRD,DATE:ICRD,GENRE:IGNR,COMMENT:ICMT,COPYRIGHT:ICOP,TRACKNUMBER:ITRK,ENCODER:ISFT"
)
_AIFF = "TITLE:NAME,ARTIST:AUTH,COPYRIGHT:(c) ,COMMENT:ANNO"
_CAF = "DATE:recorded date,COMMENT:comments,TRACKNUMBER:track number"
_ID3 = (
    "TITLE:TIT2,SUBTITLE:TIT3,ARTIST:TPE1,ALBUMARTIST:TPE2,CONDUCTOR:TPE3,ALBUM:TALB,DATE:TDRC,GENRE:TCON,LANGUAGE:TLAN,"
    "TRACKNUMBER:TRCK,DISCNUMBER:TPOS,COMPOSER:TCOM,LYRICIST:TEXT,COPYRIGHT:TCOP,ORGANIZATION:TPUB,ISRC:TSRC,BPM:TBPM,"
    "ENCODED-BY:TENC,ENCODER:TSSE"
)
_NAMES = {
    family: dict(pair.split(":") for pair in pairs.split(","))
    for family, pairs in {"RIFF": _RIFF, "AIFF": _AIFF, "CAF": _CAF, "MP3": _ID3}.items()
}
_KEYS = {family: {name: key for key, name in names.items()} for family, names in _NAMES.items()}
# Second names in chunks.
_ALIASES = {"IPRT": "TRACKNUMBER", "TRACK": "TRACKNUMBER"}
_PICTURE, _MASK = "METADATA_BLOCK_PICTURE", "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"
# FLAC's blocks that go from file to file as they are.
_BLOCKS = {2: "data of applications", 5: "cue sheet"}
_EXTENSIBLE = struct.pack("<H", 0xFFFE)
# Speakers of one and two channels, which go without saying.
_USUAL_MASKS = (None, 0, 3, 4)
_USUAL_CHAN = (struct.pack(">I", 100 << 16 | 1), struct.pack(">I", 101 << 16 | 2))
# Speakers of so many channels of FLAC, if it says nothing else.
_FLAC_MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
# Chunks are kept in memory up to so many bytes.
_LARGEST = 1 << 25


@dataclass
class Metadata:
    """What a file of a ``family`` of formats holds beside samples.

    ``tags`` and ``pictures`` are also in ``chunks``, which are by name, in the ID3 ``frames``, or in Vorbis comments.
    ``blocks`` are FLAC's cue sheet and data of applications, ``mask`` is that of the speakers, and ``lost`` is in words
    what no file will hold.
    """

    family: str
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    frames: id3.ID3 = field(default_factory=id3.ID3)
    blocks: list[Any] = field(default_factory=list)
    tags: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    mask: int | None = None
    lost: list[str] = field(default_factory=list)

    def note(self, path: Path, container: str) -> list[str]:
        """A note on what a file in this format will not hold; none if it holds all."""
        family, lost = _FAMILIES.get(container, container), list(self.lost)
        if family != self.family or family not in _WITH_CHUNKS:
            others = [chunk for chunk in self.chunks if not _is_text(*chunk)]
            lost += [_word(*chunk) for chunk in others if chunk[1][:4] not in _USUAL_CHAN]
        if family != "FLAC":
            lost += [_BLOCKS[block.code] for block in self.blocks]
        lost += ["tags"] * bool(self.tags and family not in _WITH_TAGS)
        lost += ["pictures"] * bool(self.pictures and family not in _WITH_PICTURES)
        if family not in _WITH_ID3:
            frames = [each for each in self.frames.values() if not _texts(each) and each.FrameID != "APIC"]
            lost += [f"ID3 {frame.FrameID}" for frame in frames]
        if self.mask not in _USUAL_MASKS and container not in ("WAVEX", "RF64", "FLAC"):
            lost.append("speaker mask")
        return [f"{path}: not kept: {', '.join(dict.fromkeys(lost))}"] if lost else []

    def write(self, stream: BinaryIO, container: str, subtype: str) -> None:
        """Write what can be kept into a file of samples in this format, opened ``w+b``."""
        family = _FAMILIES.get(container, container)
        if family in ("FLAC", "OGG"):
            self._write_comments(stream, container, subtype)
        elif family == "MP3" and (tag := self._id3()):
            stream.seek(0)
            _save(tag, stream)
        elif family in _WITH_CHUNKS:
            there = {chunk.name: chunk.start for chunk in chunks(stream)}
            added = self.chunks if family == self.family else self._as_chunks(family)
            if added := [each for each in added if each[0] not in there]:
                append(stream, added)
            if self.mask is not None and b"fmt " in there:
                stream.seek(there[b"fmt "])
                if stream.read(2) == _EXTENSIBLE:
                    stream.seek(there[b"fmt "] + 20)
                    stream.write(struct.pack("<I", self.mask))

    def _write_comments(self, stream: BinaryIO, container: str, subtype: str) -> None:
        """Write tags and pictures into FLAC or Ogg, and blocks into FLAC."""
        tags = list(self.tags)
        if self.mask not in _USUAL_MASKS and container == "FLAC":
            tags.append((_MASK, f"0x{self.mask:04X}"))
        if container == "OGG":
            tags += [(_PICTURE, base64.b64encode(picture.write()).decode()) for picture in self.pictures]
        if not tags and not self.pictures and not self.blocks:
            return
        file = _open_comments(stream, subtype)
        if file.tags is None:
            file.add_tags()
        file.tags[:] = tags
        if container == "FLAC":
            file.metadata_blocks += [*self.blocks, *self.pictures]
        stream.seek(0)
        file.save(stream)

    def _as_chunks(self, family: str) -> list[tuple[bytes, bytes]]:
        """Tags and pictures as chunks of another family: texts, and an ID3 tag where these do not hold all."""
        names, texts = _NAMES[family], dict[str, str]()
        for key, value in self.tags:
            name = names.get(key.upper(), key.lower() if family == "CAF" else "")
            texts[name] = f"{texts[name]}; {value}" if name in texts else value
        whole = len(texts) == len(self.tags) and "" not in texts and not self.pictures and not self.frames
        texts.pop("", None)
        encoded = [(name.encode(), value.encode() + b"\0") for name, value in texts.items()]
        if family == "CAF":
            pairs = b"".join(name + b"\0" + value for name, value in encoded)
            return [(b"info", struct.pack(">I", len(texts)) + pairs)] if texts else []
        if family == "RIFF" and texts:
            parts = (name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2) for name, text in encoded)
            encoded = [(b"LIST", b"INFO" + b"".join(parts))]
        return encoded if whole else [*encoded, _id3_chunk(self._id3(), family)]

    def _id3(self) -> id3.ID3:
        """The ID3 tag: that of the file with the texts that it lacks, or tags and pictures as one."""
        tag, texts = copy.deepcopy(self.frames), dict[str, list[str]]()
        there = {text for frame in tag.values() for text in _texts(frame)}
        for key, value in self.tags:
            if (key, value) not in there:
                texts.setdefault(key.upper(), []).append(value)
        for key, values in texts.items():
            kind = id3.Frames.get(_NAMES["MP3"].get(key, key), id3.Frame)
            frame = kind(encoding=3, text=values) if issubclass(kind, id3.TextFrame) else None
            if key == "COMMENT":
                tag.add(id3.COMM(encoding=3, lang="und", desc="", text=values))
            elif frame and list(map(str, frame.text)) == values:
                tag.add(frame)
            else:  # for one, a date that is none
                tag.add(id3.TXXX(encoding=3, desc=key, text=values))
        for number, each in enumerate([] if self.frames else self.pictures):
            text = each.desc or f"{number or ''}"  # which tells pictures of one type apart
            tag.add(id3.APIC(encoding=3, mime=each.mime, type=each.type, desc=text, data=each.data))
        return tag


def read_metadata(path: Path, recording: Recording) -> Metadata:
    """The metadata of a recording's file; what cannot be understood is ``lost``."""
    found = Metadata(_FAMILIES.get(recording.format, recording.format))
    with Pieces(path) as file:
        start, stop = without_tags(file)
        try:
            with Pieces(path, [range(start, stop)]) as body:
                _read(body, found, recording)
            if start or stop < file.size:
                file.seek(0)
                with contextlib.suppress(id3.ID3NoHeaderError):
                    found.frames = id3.ID3(file)
                    if found.family in ("RIFF", "AIFF"):
                        found.chunks.append(_id3_chunk(found.frames, found.family))
                with contextlib.suppress(apev2.APENoHeaderError):
                    apev2.APEv2(file)
                    found.lost.append("APEv2 tags")
            _add(found, [text for frame in found.frames.values() for text in _texts(frame)])
            for frame in found.frames.getall("APIC"):
                picture = Picture()
                picture.type, picture.mime, picture.desc, picture.data = frame.type, frame.mime, frame.desc, frame.data
                found.pictures.append(picture)
            for name, content in found.chunks:
                if _is_text(name, content) and name.lower() != b"id3 ":
                    _add(found, _texts_of_chunk(name, content, LAYOUTS[b"RIFX" if found.family == "RIFX" else b"RIFF"]))
        except Exception:  # mutagen raises all kinds on what is damaged
            found.lost.append("tags, which are damaged")
    return found


def _read(stream: Source, found: Metadata, recording: Recording) -> None:
    magic = stream.read(4)
    if magic in (b"fLaC", b"OggS"):
        file = _open_comments(stream, recording.subtype)
        for key, value in file.tags or ():
            if key.upper() == _PICTURE:
                found.pictures.append(Picture(base64.b64decode(value)))
            elif key.upper() == _MASK:
                found.mask = int(value, 16)
            else:
                found.tags.append((key, value))
        if magic == b"fLaC":
            found.mask = found.mask or _FLAC_MASKS.get(recording.channels)
            found.pictures += file.pictures
            found.blocks += [block for block in file.metadata_blocks if block.code in _BLOCKS]
    elif layout_of(stream):
        _read_chunks(stream, magic, found, recording)
        for name, content in found.chunks:
            if name in (b"id3 ", b"ID3 "):
                found.frames = id3.ID3(io.BytesIO(content))
    elif magic in (b".snd", b"dns."):
        start = int.from_bytes(stream.read(4), "big" if magic == b".snd" else "little")
        if annotation := _decode(stream.read(min(start, 1 << 16))[16 : max(0, start - 8)]):
            found.tags.append(("COMMENT", annotation))
    elif magic == b"NIST":
        header = stream.read(1 << 14).split(b"end_head")[0].splitlines()[2:]
        fields = [_decode(line).split(maxsplit=2) for line in header]
        _add(found, [(key, text) for key, _, text in fields if not key.startswith(("sample_", "channel_"))])


def _read_chunks(stream: Source, magic: bytes, found: Metadata, recording: Recording) -> None:
    left, end = _LARGEST, stream.seek(0, 2)
    if magic == b"RIFX":  # whose numbers are the other way round
        found.family = "RIFX"
    elif magic.upper() == b"RIFF" and found.family == "MP3":
        found.family = "RIFF"
    for chunk in chunks(stream):
        stream.seek(chunk.start)
        name = chunk.name[:4]
        if chunk.start + chunk.size > end:
            found.lost += [_word(name, stream.read(4))] if name in (*_WORDS, *_TEXTS, b"LIST", b"bext") else []
            return
        if name == b"data" and chunk.size < recording.length:
            return  # what follows are samples
        if name == b"fmt " and found.family == "RIFF":
            form = stream.read(min(chunk.size, 24))
            found.mask = int.from_bytes(form[20:], "little") if form.startswith(_EXTENSIBLE) else None
        if _SKIPPED.match(name):
            continue
        left -= chunk.size
        if left < 0:
            found.lost.append(_word(name))
        else:
            found.chunks.append((chunk.name, stream.read(chunk.size)))


def _add(found: Metadata, tags: Iterable[tuple[str, str]]) -> None:
    """Add tags whose keys are not there yet."""
    keys = {key.upper() for key, _ in found.tags}
    found.tags += [(key, value) for key, value in tags if key.upper() not in keys]


def _texts(frame: Any) -> list[tuple[str, str]]:
    """The texts of an ID3 frame by their key in Vorbis comments; none if it has no such texts."""
    if isinstance(frame, id3.USLT):
        return [("LYRICS", frame.text)]
    if not isinstance(frame, id3.TextFrame):
        return []
    keys = {"COMM": "COMMENT", "TXXX": getattr(frame, "desc", "").upper()}
    key = keys.get(frame.FrameID) or _KEYS["MP3"].get(frame.FrameID, frame.FrameID)
    return [(key, str(text)) for text in getattr(frame, "genres", frame.text)] if is_valid_key(key) else []


def _texts_of_chunk(name: bytes, content: bytes, layout: Layout) -> list[tuple[str, str]]:
    """The texts of a chunk, or of a list of them, by their key in Vorbis comments."""
    pairs, family = [(name, content)], "AIFF"
    if name == b"LIST":
        parts = chunks(io.BytesIO(content), 4, layout)
        pairs, family = [(each.name, content[each.start : each.start + each.size]) for each in parts], "RIFF"
    elif name == b"info":
        words = content[4:].split(b"\0")
        pairs, family = list(zip(words[::2], words[1::2], strict=False)), "CAF"
    keys = _ALIASES | _KEYS[family]
    named = [(_decode(name), _decode(text)) for name, text in pairs]
    texts = [(keys.get(name) or keys.get(name.upper(), name.upper()), text) for name, text in named]
    return [(key, text) for key, text in texts if is_valid_key(key)]


def _decode(text: bytes) -> str:
    """A text up to its end, in UTF-8 or, if it is not that, in Latin-1."""
    text = text.split(b"\0")[0]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _is_text(name: bytes, content: bytes) -> bool:
    """Whether a chunk holds texts, which are among the tags."""
    return name in _TEXTS or (name == b"LIST" and content[:4] == b"INFO")


def _word(name: bytes, content: bytes = b"") -> str:
    """A chunk in the words of people."""
    if name == b"LIST":
        name = content[:4]
    return _WORDS.get(name[:4], name[:4].decode("latin-1").strip())


def _save(tag: id3.ID3, stream: BinaryIO) -> None:
    """Write an ID3 tag in front of what a stream holds, in the tag's own version."""
    if tag.version < (2, 4):
        tag = copy.deepcopy(tag)
        tag.update_to_v23()
    tag.save(stream, v2_version=min(4, max(3, tag.version[1])), padding=lambda _: 0)


def _id3_chunk(tag: id3.ID3, family: str) -> tuple[bytes, bytes]:
    buffer = io.BytesIO()
    _save(tag, buffer)
    return b"id3 " if family == "RIFF" else b"ID3 ", buffer.getvalue()


def _open_comments(stream: Source, subtype: str) -> Any:
    """A FLAC or Ogg file, as mutagen reads it."""
    stream.seek(0)
    return {"VORBIS": OggVorbis, "OPUS": OggOpus}.get(subtype, FLAC)(stream)
