"""Devices, and the precision in which they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dapcli.errors import DeviceError, SettingsError
from dapcli.settings import look_up

PRECISIONS = ("auto", "float32", "bfloat16")


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name: ``auto`` (CUDA, then Apple's MPS, then CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        SettingsError: There is no such kind of device.
        DeviceError: The machine does not have it.
    """
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdecimal())):
        raise SettingsError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            found = f"{count} CUDA device{'s' if count != 1 else ''}"
            raise DeviceError(f"{name} is not there: torch finds {found}; use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps is not there: torch finds no Apple GPU; use --device auto or cpu")
    return torch.device(name)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type that convolutions compute in; weights, spectrograms and losses are float32 throughout.

    ``auto`` is bfloat16 where that is faster, for it is as good: on processors with matrix units for it, and on AMD's,
    which multiply it at twice the rate. Intel's AVX-512 does not, and GPUs are faster with TF32 (docs/performance.md).

    Raises:
        SettingsError: The precision has another name.
    """
    look_up(precision, PRECISIONS, "precision")
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    processor: Mapping[str, Any] = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = processor.get("amx_bf16") or (processor.get("avx512_bf16") and "AMD" in processor["cpu_name"])
    return torch.bfloat16 if fast else torch.float32
