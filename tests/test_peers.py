from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.peers import PEERS, noise_power, track_noise

RATE = 16000
PACKAGES = {"wavelet": ("skimage", "pywt"), "noisereduce": ("noisereduce",)}
TOLD = [name for name, peer in PEERS.items() if peer.accepts_noise]

Array = NDArray[np.float64]


@pytest.fixture(params=PEERS)
def name(request: pytest.FixtureRequest) -> str:
    peer = str(request.param)
    for package in PACKAGES.get(peer, ()):
        pytest.importorskip(package, reason=f"the peer {peer} needs {package}: pip install 'dapcli[peers]'")
    return peer


def harmonic_tone(seconds: float = 1.0) -> Array:
    t = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, 9)[:, None]
    tone = np.sum(np.sin(2 * np.pi * 220 * harmonics * t + harmonics) / harmonics, axis=0)
    return np.asarray(0.2 * tone * np.sin(np.pi * 3 * t) ** 2)  # swells, so that a blind peer meets pauses


def white(n: int, seed: int = 0) -> Array:
    return 0.1 * np.random.default_rng(seed).standard_normal(n)


def snr_db(clean: Array, estimate: Array) -> float:
    return float(10 * np.log10(np.sum(clean**2) / np.sum((clean - estimate) ** 2)))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 3000), rate=st.sampled_from([8000, 16000, 22050, 44100]), seed=st.integers(0, 2**16))
def test_decision_directed_peers_keep_any_length(n: int, rate: int, seed: int) -> None:
    noisy = white(n, seed)
    for name in TOLD:
        for psd in (None, noise_power(white(4000, seed + 1), rate)):
            restored = PEERS[name](noisy, rate, psd)
            assert restored.shape == noisy.shape
            assert np.isfinite(restored).all()


@pytest.mark.parametrize("n", [2, 3, 15, 255, 256, 1001, 5003])
def test_every_peer_keeps_the_length(name: str, n: int) -> None:
    noisy = white(n)
    restored = PEERS[name](noisy, RATE)
    assert restored.shape == noisy.shape
    assert restored.dtype == np.float64
    assert np.isfinite(restored).all()


@pytest.mark.parametrize("n", [1, 4000])
def test_silence_stays_silent(name: str, n: int) -> None:
    assert not PEERS[name](np.zeros(n), RATE).any()


def test_the_input_is_not_changed(name: str) -> None:
    noisy = white(4000)
    before = noisy.copy()
    PEERS[name](noisy, RATE)
    np.testing.assert_array_equal(noisy, before)


@pytest.mark.parametrize("gap", [slice(0, 4000), slice(4000, 8000)])
def test_digital_silence_inside_a_recording_is_survived(name: str, gap: slice) -> None:
    noisy = white(12000)
    noisy[gap] = 0
    assert np.isfinite(PEERS[name](noisy, RATE)).all()


@pytest.mark.parametrize("peer", TOLD)
def test_told_peers_remove_white_noise(peer: str) -> None:
    clean, noise = harmonic_tone(), white(RATE)
    restored = PEERS[peer](clean + noise, RATE, noise_power(white(RATE, seed=9), RATE))
    assert snr_db(clean, restored) > snr_db(clean, clean + noise) + 6


@pytest.mark.parametrize("peer", TOLD)
def test_blind_peers_remove_white_noise(peer: str) -> None:
    clean, noise = harmonic_tone(), white(RATE)
    assert snr_db(clean, PEERS[peer](clean + noise, RATE)) > snr_db(clean, clean + noise) + 4


@pytest.mark.parametrize("peer", TOLD)
@pytest.mark.parametrize("told", [False, True])
def test_level_does_not_matter(peer: str, told: bool) -> None:
    noise = white(RATE)
    noisy = harmonic_tone() + noise
    psd = noise_power(noise, RATE) if told else None
    louder = PEERS[peer](2 * noisy, RATE, None if psd is None else 4 * psd)
    np.testing.assert_allclose(louder, 2 * PEERS[peer](noisy, RATE, psd), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("peer", TOLD)
def test_noise_free_input_told_so_is_unchanged(peer: str) -> None:
    clean = harmonic_tone()
    silence = noise_power(np.zeros(RATE), RATE)
    assert snr_db(clean, PEERS[peer](clean, RATE, silence)) > 40


@pytest.mark.parametrize("peer", TOLD)
def test_a_noise_spectrum_of_another_rate_is_refused(peer: str) -> None:
    with pytest.raises(ValueError, match="noise_psd has shape"):
        PEERS[peer](white(RATE), RATE, noise_power(white(RATE), 44100))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_noise_power_of_white_noise_is_its_variance(rate: int) -> None:
    power = noise_power(white(4 * rate), rate)
    assert power.shape == (2 * round(0.008 * rate) + 1,)
    assert power.mean() == pytest.approx(0.01, rel=0.05)


def test_tracked_noise_follows_the_noise_and_not_a_burst() -> None:
    rng = np.random.default_rng(3)
    power = rng.exponential(1.0, (200, 257))
    power[80:110, 40:60] += 100.0
    track = track_noise(power)
    assert 0.5 < track[:, :40].mean() < 1.1
    assert track[109, 40:60].max() < 5
