"""The Python API takes what is meant well, and refuses the rest in one sentence before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapcli import TASKS, Audio, Settings, denoise, read_audio, restore, score, separate
from dapcli.errors import InputError, OutputError, SettingsError
from dapcli.signal.clipping import Clipping
from dapcli.signal.gaps import Gaps, make_gaps
from dapcli.signal.missing import Missing
from tests.signals import RATE, noise

STEREO = Audio(noise(2, 400), RATE)
TINY = Settings(prior="conv", base_channels=2, iterations=1, finetune_iterations=0)
HOLE = np.where(np.arange(400) == 5, np.nan, STEREO.samples)
READ_ONLY = np.broadcast_to(0.5, (2, 400))
GAP = ((100, 110),)


@pytest.mark.parametrize(
    "given",
    [
        STEREO.samples.tolist(),
        torch.tensor(STEREO.samples),
        np.ascontiguousarray(STEREO.samples.T).T,
        STEREO.samples[:, ::-1][:, ::-1],
        STEREO.samples.astype(">f8"),
    ],
    ids=["lists", "tensor", "Fortran order", "negative strides", "big-endian"],
)
def test_floats_of_any_making_are_samples(given: Any) -> None:
    np.testing.assert_array_equal(Audio(given, RATE).samples, STEREO.samples)


@pytest.mark.filterwarnings("error")
def test_read_only_and_reversed_samples_are_restored_without_a_warning() -> None:
    given: list[Any] = [READ_ONLY, STEREO.samples[:, ::-1], STEREO.samples.astype(np.float32)]
    for samples in given:
        assert denoise(Audio(samples, np.int64(RATE)), TINY, device="cpu").audio.samples.shape == (2, 400)


def test_one_dimension_is_one_channel() -> None:
    mono = Audio(STEREO.samples[0], RATE)
    np.testing.assert_array_equal(mono.samples, STEREO.samples[:1])
    assert score(mono.samples[0], mono.samples[0] / 2, RATE) == score(mono.samples, mono.samples / 2, RATE)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (STEREO.samples.T, r"400 channels of 2.*samples\.T"),
        ((STEREO.samples * 32_767).astype(np.int16), r"int16.*/ 32768"),
        ((STEREO.samples * 127 + 128).astype(np.uint8), r"uint8.*/ 128 - 1"),
        ([0, 1, 2], "int64"),
        (HOLE, "NaN"),
        (STEREO.samples + 0j, "complex128"),
        (STEREO.samples.astype(object), "floats"),
        (STEREO.samples > 0, "bool"),
        ([[0.1], [0.1, 0.2]], "no array"),
        (torch.zeros(1, 9, requires_grad=True), "no array.*detach"),
        (STEREO.samples[None], r"\[1, 2, 400\]"),
        (0.5, "channels first"),
        (np.zeros((1, 0)), "no samples"),
        (STEREO, "Audio"),
        (None, "NoneType"),
    ],
)
def test_what_are_no_samples_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Audio(given, RATE)


@pytest.mark.parametrize("rate", [0, -8_000, 16_000.0, "16000", None])
def test_rates_are_whole_numbers_above_zero(rate: Any) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: Audio(STEREO.samples, rate),
        lambda: score(STEREO.samples, STEREO.samples, rate),
    ]
    for use in uses:
        with pytest.raises(InputError, match="whole number of Hz"):
            use()


@pytest.mark.parametrize("rate", [1, 100, 10**9])
def test_nothing_is_fitted_at_other_rates_than_files_may_have(no_fit: None, rate: int) -> None:
    recording = Audio(STEREO.samples, rate)
    uses: list[Callable[[], Any]] = [
        lambda: denoise(recording),
        lambda: separate(recording),
        lambda: restore(recording, Missing(Gaps((GAP, GAP)))),
    ]
    for use in uses:
        with pytest.raises(InputError, match="outside 2000 to 1000000"):
            use()


@pytest.mark.parametrize("given", [STEREO.samples, "in.wav", None])
def test_a_recording_is_an_audio_or_an_open_file(no_fit: None, given: Any) -> None:
    oracle = replace(TINY, stop="oracle")
    uses: list[Callable[[], Any]] = [
        lambda: denoise(given),
        lambda: separate(given),
        lambda: restore(given, Missing(Gaps((GAP, GAP)))),
        lambda: denoise(STEREO, oracle, device="cpu", references=[given]),
    ]
    for use in uses:
        with pytest.raises(InputError, match=r"read_audio\(path\)"):
            use()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iterations": 2.5}, "iterations"),
        ({"iterations": True}, "iterations"),
        ({"prior": None}, "prior"),
        ({"seed": "1"}, "seed"),
        ({"rate": 16_000.0}, "rate"),
        ({"attenuation_limit": "12"}, "attenuation_limit"),
    ],
)
def test_settings_of_another_type_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        replace(TINY, **changes)


def test_settings_take_numbers_of_numpy_and_hold_those_of_python() -> None:
    changed = replace(TINY, iterations=np.int64(2), learning_rate=np.float32(0.5), segment=4)
    assert changed == replace(TINY, iterations=2, learning_rate=0.5, segment=4.0)
    assert [type(each) for each in (changed.iterations, changed.learning_rate, changed.segment)] == [int, float, float]


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"settings": "fast"}, SettingsError, "presets"),
        ({"settings": {}}, SettingsError, "presets"),
        ({"device": None}, SettingsError, "use auto, cpu"),
        ({"device": 0}, SettingsError, "use auto, cpu"),
        ({"parallel": 0}, SettingsError, "--parallel"),
        ({"parallel": 2.5}, SettingsError, "--parallel"),
        ({"noise_profile": "0:0.1"}, SettingsError, r"\(start, end\) in seconds"),
        ({"noise_profile": STEREO.samples}, SettingsError, r"\(start, end\) in seconds"),
        ({"references": STEREO}, InputError, r"\[reference\]"),
        ({"references": [Audio(STEREO.samples, 16_000)]}, InputError, "at 16000 Hz, the recording"),
        ({"references": [Audio(STEREO.samples[:1], RATE)]}, InputError, "1 channel of 400"),
    ],
)
def test_arguments_of_another_kind_are_refused(
    no_fit: None, arguments: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        denoise(STEREO, **{"settings": TINY, "device": "cpu", **arguments})


@pytest.mark.parametrize(
    ("degradation", "reason"),
    [
        (lambda: None, "NoneType"),
        (lambda: Gaps((GAP, GAP)), r"Missing\(gaps\)"),
        (lambda: Missing([(100, 110)]), "make_gaps"),  # type: ignore[arg-type]
        (lambda: Missing(Gaps((GAP,))), "of 1 channel"),
        (lambda: Missing(Gaps((((100, 401),),) * 2)), "outside the recording"),
        (lambda: Missing(Gaps((((0.1, 0.2),),) * 2)), "whole samples"),  # type: ignore[arg-type]
        (lambda: Missing(Gaps(GAP)), "every channel"),  # type: ignore[arg-type]
        (lambda: Missing(make_gaps([(-5, 3)], STEREO)[0]), "negative"),
        (lambda: Clipping((-0.5,), (0.5,)), "for 1 channel"),
    ],
)
def test_degradations_that_a_recording_cannot_have_are_refused(no_fit: None, degradation: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        restore(STEREO, degradation())


@pytest.mark.parametrize("types", ["harmonic,percussive", None, 2, TASKS["separate"].presets["fast"], ("voice",)])
@pytest.mark.parametrize("preset", ["quality", "double-dip"])
def test_types_are_two_to_four(no_fit: None, types: Any, preset: str) -> None:
    with pytest.raises(SettingsError, match="types"):
        separate(STEREO, types, TASKS["separate"].presets[preset])


# Files


def save(paths: Sequence[Path | str], overwrite: bool = False, scale: float = 1.0) -> float:
    mixture = Audio(scale * STEREO.samples, RATE, "PCM_16")
    settings = replace(TASKS["separate"].presets["fast"], iterations=1, prior="none")
    return separate(mixture, settings=settings, device="cpu").save(*paths, overwrite=overwrite)


def test_results_are_saved_by_their_extension_and_read_by_any_path(tmp_path: Path) -> None:
    paths: list[str | Path] = [str(tmp_path / "a.flac"), tmp_path / "b.flac"]
    assert save(paths) == 1.0
    one, two = map(read_audio, paths)
    assert (one.format, one.subtype) == (two.format, two.subtype) == ("FLAC", "PCM_16")
    np.testing.assert_allclose(one.samples + two.samples, STEREO.samples, atol=2**-15)
    with pytest.raises(OutputError, match="already exists"):
        save(paths)
    # All are lowered alike where one does not fit.
    gain = save(paths, overwrite=True, scale=10.0)
    assert gain < 1
    np.testing.assert_allclose(sum(read_audio(path).samples for path in paths), gain * 10 * STEREO.samples, atol=2**-15)


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["a.wav"], "2 estimates"), (["a.wav", "a.wav"], "2 estimates"), (["a.wav", "b.flac"], "several extensions")],
)
def test_every_estimate_has_a_file_of_one_format(tmp_path: Path, names: list[str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        save([tmp_path / name for name in names])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 5, b"in.wav"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InputError, match="no path"):
        read_audio(path)
