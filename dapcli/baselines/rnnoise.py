"""RNNoise, a small recurrent network that was trained on hours of speech and noise: what training is worth."""

from __future__ import annotations

import ctypes

import numpy as np

from dapcli.audio import resample
from dapcli.baselines.baseline import Array

_RATE = 48_000
# It counts in 16-bit steps, and is two frames of 480 samples late.
_FULL_SCALE = 32_768
_LATE = 960


def rnnoise(noisy: Array, rate: int, noise_psd: Array | None = None) -> Array:  # noqa: ARG001
    """RNNoise with the model that the package pyrnnoise carries, at 48 kHz, lined up with its input to the sample.

    It returns 16 bits, as its users meet it: what it silences altogether is worth 0.2 of CSIG less in finer steps.

    Valin, "A hybrid DSP/deep learning approach to real-time full-band speech enhancement" (MMSP 2018,
    https://doi.org/10.1109/MMSP.2018.8547084).
    """
    from pyrnnoise.rnnoise import FRAME_SIZE, create, destroy, lib

    samples = _FULL_SCALE * resample(noisy[None], rate, _RATE)[0]
    count = -(-(samples.size + _LATE) // FRAME_SIZE)
    frames = np.zeros((count, FRAME_SIZE), dtype=np.float32)
    frames.ravel()[: samples.size] = samples
    state = create()
    try:
        # Not by the binding's own function, where what is louder than full scale wraps.
        for frame in frames:
            pointer = frame.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            lib.rnnoise_process_frame(state, pointer, pointer)
    finally:
        destroy(state)
    restored = frames.ravel()[_LATE : _LATE + samples.size].astype(np.float64)
    return np.rint(resample(restored[None], _RATE, rate)[0, : noisy.size]) / _FULL_SCALE
