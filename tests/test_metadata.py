"""Metadata: chunks, tags, pictures and speakers go from IN into OUT, and what does not is noted."""

from __future__ import annotations

import base64
import errno
import io
import os
import struct
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen import id3
from mutagen.aiff import AIFF
from mutagen.flac import FLAC, CueSheet, CueSheetTrack, CueSheetTrackIndex, Picture
from mutagen.mp3 import MP3
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from dapcli.audio import Audio, encode, open_audio, output_format, read_audio, write_audio
from dapcli.audio.chunks import chunks
from dapcli.audio.metadata import Metadata, read_metadata
from dapcli.audio.writing import metadata_to_write
from tests.command_line import COMMANDS, Dap, ok, record_of

RATE = 16_000
SOUND = Audio(0.3 * np.sin(np.arange(4_001) / 9)[None], RATE, "PCM_16", "WAV")
TAGS = {"TITLE": "Gespräch 7", "ARTIST": "Jane Doe", "DATE": "2024", "MOOD OF DAY": "calm"}
PICTURE = b"\x89PNG\r\n" + bytes(range(256)) * 20


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content + bytes(len(content) % 2)


INFO = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Interview 7\0") + chunk(b"IENG", b"Jo\xe9\0"))
CUE = chunk(b"cue ", struct.pack("<I", 1) + struct.pack("<II4sIII", 1, 80, b"data", 0, 0, 80))
LABEL = chunk(b"LIST", b"adtl" + chunk(b"labl", struct.pack("<I", 1) + b"door\0"))
SMPL = chunk(b"smpl", struct.pack("<9I", 0, 0, 62_500, 60, 0, 0, 0, 1, 0) + struct.pack("<6I", 0, 0, 40, 120, 0, 0))
RIFF = chunk(b"bext", b"Tape 12".ljust(602, b"\0")), INFO, CUE, LABEL, SMPL, chunk(b"iXML", b"<BWFXML/>")
MARK = chunk(b"MARK", struct.pack(">HHI", 1, 1, 80) + b"\4door\0", ">")
AIFF_CHUNKS = (MARK, chunk(b"NAME", b"Interview 7", ">"), chunk(b"COMT", bytes(13), ">"), chunk(b"ANNO", b"odd", ">"))


def file_with(path: Path, container: str, added: bytes = b"") -> Path:
    """A WAV or AIFF file with further chunks at its end."""
    data = encode(Audio(SOUND.samples, RATE, "PCM_16", container)) + added
    order = ">" if container == "AIFF" else "<"
    size = struct.pack(f"{order}I", len(data) - 8)
    path.write_bytes(data[:4] + size + data[8:])
    return path


def convert(source: Path, target: Path) -> str:
    """Write the samples of one file into another with what can be kept, and return the note on the rest."""
    with open_audio(source) as file:
        container, subtype = output_format(target, file)
        metadata = metadata_to_write(source, file, container, subtype)
        samples = file.read(0, file.length)
    target.write_bytes(encode(Audio(samples, file.rate, subtype, container), metadata))
    assert read_audio(target).length == file.length
    return "".join(metadata.note(target, container))


def tagged(path: Path) -> Path:
    """A file with tags and a picture, as mutagen writes them."""
    container, subtype = output_format(path, SOUND)
    path.write_bytes(encode(Audio(SOUND.samples, RATE, subtype, container)))
    picture = Picture()
    picture.type, picture.mime, picture.data = 3, "image/png", PICTURE
    if path.suffix in (".flac", ".ogg", ".opus"):
        file: Any = {".flac": FLAC, ".ogg": OggVorbis, ".opus": OggOpus}[path.suffix](path)
        for key, value in TAGS.items():
            file[key] = value
        if path.suffix == ".flac":
            file.add_picture(picture)
        else:
            file["METADATA_BLOCK_PICTURE"] = [base64.b64encode(picture.write()).decode()]
    else:
        file = {".mp3": MP3, ".wav": WAVE, ".aiff": AIFF}[path.suffix](path)
        if file.tags is None:
            file.add_tags()
        file.tags.add(id3.TIT2(text=TAGS["TITLE"]))
        file.tags.add(id3.TPE1(text=TAGS["ARTIST"]))
        file.tags.add(id3.TDRC(text=TAGS["DATE"]))
        file.tags.add(id3.TXXX(desc="MOOD OF DAY", text=TAGS["MOOD OF DAY"]))
        file.tags.add(id3.APIC(mime="image/png", type=3, data=PICTURE))
    file.save()
    return path


def tags_of(path: Path) -> tuple[dict[str, str], bytes]:
    """Tags and the picture of a file, as mutagen reads them."""
    file = mutagen.File(path)
    if not isinstance(file.tags, id3.ID3):
        tags = {key.upper(): values[0] for key, values in file.tags.as_dict().items()}
        encoded = tags.pop("METADATA_BLOCK_PICTURE", "")
        return tags, (Picture(base64.b64decode(encoded)) if encoded else file.pictures[0]).data
    tag = file.tags
    names = {"TIT2": "TITLE", "TPE1": "ARTIST", "TDRC": "DATE", "TXXX:MOOD OF DAY": "MOOD OF DAY"}
    return {names[key]: str(tag[key].text[0]) for key in names}, tag.getall("APIC")[0].data


@pytest.mark.parametrize("target", ["wav", "flac", "ogg", "opus", "mp3", "aiff"])
@pytest.mark.parametrize("source", ["wav", "flac", "ogg", "opus", "mp3", "aiff"])
def test_tags_and_pictures_go_into_every_format_that_has_them(source: str, target: str, tmp_path: Path) -> None:
    path = tagged(tmp_path / f"in.{source}")
    assert convert(path, tmp_path / f"out.{target}") == convert(path, tmp_path / f"again.{target}") == ""
    assert (tmp_path / f"out.{target}").read_bytes() == (tmp_path / f"again.{target}").read_bytes()
    tags, picture = tags_of(tmp_path / f"out.{target}")
    assert tags.items() >= TAGS.items()
    assert picture == PICTURE
    if target == "wav" != source:  # which few programs search for ID3
        assert soundfile.SoundFile(tmp_path / "out.wav").title == TAGS["TITLE"]


@pytest.mark.parametrize(
    ("container", "target", "added"),
    [
        ("WAV", "out.wav", RIFF),
        ("WAVEX", "out.wav", RIFF),
        ("WAV", "out.rf64", RIFF),
        ("AIFF", "out.aiff", AIFF_CHUNKS),
    ],
)
def test_chunks_are_copied_as_they_are(container: str, target: str, added: tuple[bytes, ...], tmp_path: Path) -> None:
    source = file_with(tmp_path / "in", container, b"".join(added))
    assert convert(source, tmp_path / target) == ""
    data = (tmp_path / target).read_bytes()
    assert data.endswith(b"".join(added))
    if target != "out.rf64":
        assert data == source.read_bytes()


def test_texts_of_chunks_become_tags_and_the_rest_is_noted_once(tmp_path: Path) -> None:
    source = file_with(tmp_path / "in.wav", "WAV", b"".join((*RIFF, CUE)))
    note = convert(source, tmp_path / "out.flac")
    assert FLAC(tmp_path / "out.flac").tags.as_dict() == {"title": ["Interview 7"], "ieng": ["Joé"]}
    assert str(tmp_path / "out.flac") in note
    for word in ("bext", "cue points", "loops", "iXML"):
        assert note.count(word) == 1 + (word == "cue points")  # and their labels
    assert "tags" in convert(source, tmp_path / "out.au")


def test_a_cue_sheet_is_kept_in_flac_and_noted_elsewhere(tmp_path: Path) -> None:
    source = tagged(tmp_path / "in.flac")
    file = FLAC(source)
    file.cuesheet = CueSheet(None)
    file.cuesheet.compact_disc = False
    file.cuesheet.tracks = [CueSheetTrack(1, 0), CueSheetTrack(255, 4_001)]
    file.cuesheet.tracks[0].indexes = [CueSheetTrackIndex(1, 0)]
    file.save()
    assert convert(source, tmp_path / "out.flac") == ""
    assert [track.start_offset for track in FLAC(tmp_path / "out.flac").cuesheet.tracks] == [0, 4_001]
    assert "cue sheet" in convert(source, tmp_path / "out.wav")
    assert "cue sheet, pictures" in convert(source, tmp_path / "out.caf")


def test_an_id3_tag_that_is_not_all_text_is_kept_in_mp3_and_noted_elsewhere(tmp_path: Path) -> None:
    source = tagged(tmp_path / "in.mp3")
    tag = id3.ID3(source)
    tag.add(id3.UFID(owner="a", data=b"b"))
    tag.save(v2_version=3)
    assert convert(source, tmp_path / "out.mp3") == ""
    assert id3.ID3(tmp_path / "out.mp3").getall("UFID") == tag.getall("UFID")
    assert id3.ID3(tmp_path / "out.mp3").version == (2, 3, 0)
    assert "UFID" in convert(source, tmp_path / "out.flac")


def test_texts_that_only_chunks_have_join_those_of_the_id3_tag(tmp_path: Path) -> None:
    tag = id3.ID3()
    tag.add(id3.TIT2(text="Song"))
    tag.save(tmp_path / "id3")
    info = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Song\0") + chunk(b"IART", b"Jane\0"))
    source = file_with(tmp_path / "in.wav", "WAV", info + chunk(b"id3 ", (tmp_path / "id3").read_bytes()))
    assert convert(source, tmp_path / "out.mp3") == convert(source, tmp_path / "out.flac") == ""
    texts = id3.ID3(tmp_path / "out.mp3")
    assert {key: texts[key].text for key in texts} == {"TIT2": ["Song"], "TPE1": ["Jane"]}
    assert dict(FLAC(tmp_path / "out.flac")) == {"title": ["Song"], "artist": ["Jane"]}


@pytest.mark.parametrize(("name", "kept"), [("out.wav", True), ("out.flac", True), ("out.ogg", False)])
def test_speakers_are_kept_or_noted(name: str, kept: bool, tmp_path: Path) -> None:
    source, mask = tmp_path / "in.wav", 0x10B
    data = encode(Audio(np.repeat(SOUND.samples, 4, axis=0), RATE, "PCM_16", "WAVEX"))
    source.write_bytes(data[:40] + struct.pack("<I", mask) + data[44:])
    assert ("speaker" in convert(source, tmp_path / name)) != kept
    if name == "out.wav":
        assert (tmp_path / name).read_bytes()[40:44] == struct.pack("<I", mask)
    elif kept:
        assert FLAC(tmp_path / name)["WAVEFORMATEXTENSIBLE_CHANNEL_MASK"] == ["0x010B"]
        assert convert(tmp_path / name, tmp_path / "back.wav") == ""
        assert (tmp_path / "back.wav").read_bytes()[40:44] == struct.pack("<I", mask)


def test_chunks_that_describe_the_old_samples_are_not_copied(tmp_path: Path) -> None:
    source = file_with(tmp_path / "in.wav", "WAV", chunk(b"levl", bytes(100)) + chunk(b"JUNK", bytes(30)) + CUE)
    convert(source, tmp_path / "out.wav")
    with (tmp_path / "out.wav").open("rb") as stream:
        assert [each.name for each in chunks(stream)] == [b"fmt ", b"data", b"cue "]


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_damaged_tags_neither_stop_a_run_nor_spoil_its_output(extension: str, tmp_path: Path) -> None:
    whole = tagged(tmp_path / f"whole.{extension}").read_bytes()
    with open_audio(tmp_path / f"whole.{extension}") as file:
        format_ = output_format(Path(f"out.{extension}"), file)

        @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=40))
        @settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
        def damage(changes: list[tuple[int, int]]) -> None:
            data = bytearray(whole)
            for place, value in changes:
                data[place] = value
            (tmp_path / "in").write_bytes(data)
            metadata = metadata_to_write(tmp_path / "in", file, *format_)
            encoded = encode(Audio(SOUND.samples, RATE, format_[1], format_[0]), metadata)
            assert soundfile.read(io.BytesIO(encoded))[0].shape == (4_001,)

        damage()


def test_a_disk_that_fills_while_tags_are_written_is_told_apart_from_damaged_tags(tmp_path: Path) -> None:
    source, full = tagged(tmp_path / "in.flac"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if PICTURE in data:
                raise full
            return super().write(data)

    with open_audio(source) as file:
        metadata = metadata_to_write(source, file, "FLAC", "PCM_16")
        with pytest.raises(OSError) as caught:
            write_audio(Full(), file, metadata)
    assert caught.value is full


@pytest.mark.usefixtures("recordings")
@pytest.mark.parametrize("task", ["denoise", "separate"])
def test_what_is_not_kept_is_noted_before_the_fit_and_in_the_record(task: str, dap: Dap, folder: Path) -> None:
    command, name, out, *options = COMMANDS[task]
    source = folder / name
    source.write_bytes(source.read_bytes() + CUE)
    if task == "separate":
        options += ["--format", "flac"]
    else:
        out = "out.flac"
    run = ok(dap(command, name, out, *options))
    note = record_of(folder / out)["notes"]["output_1"]
    assert "cue points" in note
    assert run.err.count("cue points") == 1


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_a_tag_in_front_is_kept(extension: str, tmp_path: Path) -> None:
    tag = io.BytesIO()
    id3.ID3(tagged(tmp_path / "a.mp3")).save(tag)
    source = tmp_path / f"in.{extension}"
    container, subtype = output_format(source, SOUND)
    source.write_bytes(tag.getvalue() + encode(Audio(SOUND.samples, RATE, subtype, container)))
    assert convert(source, tmp_path / f"out.{extension}") == ""
    assert tags_of(tmp_path / f"out.{extension}") == (TAGS, PICTURE)


def au(data: bytes) -> bytes:
    return data[:4] + struct.pack(">I", 40) + data[8:24] + b"Interview 7".ljust(16, b"\0") + data[24:]


def nist(data: bytes) -> bytes:
    head, rest = data[:1024].replace(b"end_head", b"title -s11 Interview 7\nend_head"), data[1024:]
    return head[:1024] + rest


def id3v1(data: bytes) -> bytes:
    return data + b"TAG" + b"Interview 7".ljust(124, b"\0") + b"\xff"


@pytest.mark.parametrize(
    ("container", "change", "key"),
    [("AU", au, "COMMENT"), ("NIST", nist, "TITLE"), ("MP3", id3v1, "TITLE"), ("FLAC", id3v1, "TITLE")],
)
def test_texts_are_found_where_old_formats_have_them(container: str, change: Any, key: str, tmp_path: Path) -> None:
    subtype = soundfile.default_subtype(container)
    source = tmp_path / f"in.{container}"
    source.write_bytes(change(encode(Audio(SOUND.samples, RATE, subtype, container))))
    assert convert(source, tmp_path / "out.flac") == ""
    assert FLAC(tmp_path / "out.flac")[key] == ["Interview 7"]
    assert "tags" in convert(source, tmp_path / "out.au")


@pytest.mark.parametrize("length", [100, 101])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("RF64", "PCM_U8"),
        ("AIFF", "PCM_S8"),
        ("AIFF", "ULAW"),
        ("CAF", "PCM_S8"),
        ("CAF", "ALAC_16"),
    ],
)
def test_chunks_behind_samples_are_no_samples(container: str, subtype: str, length: int, tmp_path: Path) -> None:
    family = "RIFF" if container in ("WAV", "RF64") else container
    metadata = Metadata(family, chunks=[(b"uuid", b"odd"), (b"cart", bytes(80))])
    (tmp_path / "a").write_bytes(encode(Audio(SOUND.samples[:, :length], RATE, subtype, container), metadata))
    assert read_audio(tmp_path / "a").length == soundfile.info(tmp_path / "a").frames == length
    with open_audio(tmp_path / "a") as file:
        assert read_metadata(tmp_path / "a", file).chunks == metadata.chunks


@pytest.mark.parametrize("length", [100, 101])
def test_chunks_of_w64_are_neither_samples_nor_copied(length: int, tmp_path: Path) -> None:
    data = encode(Audio(SOUND.samples[:, :length], RATE, "PCM_U8", "W64"))
    data += bytes(-len(data) % 8) + b"bext" + data[44:56] + struct.pack("<Q", 64) + bytes(40)
    (tmp_path / "a.w64").write_bytes(data[:16] + struct.pack("<Q", len(data)) + data[24:])
    assert "bext" in convert(tmp_path / "a.w64", tmp_path / "b.w64")
    assert soundfile.info(tmp_path / "b.w64").frames == length


@pytest.mark.parametrize("extension", ["wav", "aiff", "caf", "flac", "ogg", "opus", "mp3"])
def test_any_texts_come_back_and_are_no_samples(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    container, subtype = output_format(path, SOUND)
    keys = st.sampled_from(["TITLE", "DATE", "COMMENT", "BPM"]) | st.text("ABC :[", min_size=1, max_size=5)
    texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)

    @given(st.dictionaries(keys, texts, max_size=4))
    @settings(deadline=None, max_examples=25)
    def check(tags: dict[str, str]) -> None:
        audio = Audio(SOUND.samples, RATE, subtype, container)
        path.write_bytes(encode(audio, Metadata("", tags=[*tags.items()])))
        with open_audio(path) as file:
            assert file.length == SOUND.length
            found = {key.upper(): text for key, text in read_metadata(path, file).tags}
        assert found.items() >= tags.items()

    check()


@pytest.mark.parametrize("change", ["padding", "end"])
def test_a_chunk_that_was_written_badly_is_kept_or_noted(change: str, tmp_path: Path) -> None:
    data = encode(Audio(SOUND.samples, RATE, "PCM_U8", "WAV"))
    (tmp_path / "in.wav").write_bytes(data.rstrip(b"\0") + CUE if change == "padding" else data + CUE[:-9])
    note = convert(tmp_path / "in.wav", tmp_path / "out.wav")
    assert (tmp_path / "out.wav").read_bytes().endswith(CUE) == (note == "") == (change == "padding")
    assert ("cue points" in note) == (change == "end")
