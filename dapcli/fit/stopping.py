"""When to stop a fit.

A deep prior explains the sound of a recording before its noise, and the noise if one lets it. A rule gives every
iterate a criterion; the loop keeps the iterate where that is lowest, and stops once it has not been lower for
``patience`` iterations. To add a rule, write a class like those below and give it a line in :data:`STOPPING_RULES`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dapcli.errors import SettingsError
from dapcli.signal.sources import match
from dapcli.signal.stft import STFT

#: What a rule may go by besides the recording: samples that are hidden from the fit, its noise, training_pairs, the truth.
Need = Literal["hidden", "noise", "training_pairs", "reference"]

_LACKS_NOISE = "tells sound from noise, and there is none to be removed here; leave it out"
# What people read where it is not there.
_LACKING: dict[Need, str] = {
    "hidden": _LACKS_NOISE,
    "noise": _LACKS_NOISE,
    "training_pairs": "goes by training_pairs, which only repairs with --estimator mix have; leave it out",
    "reference": "compares with the truth; give it with --reference",
}


@dataclass(frozen=True)
class StopContext:
    """What a rule may know.

    The recording ``[C, N]`` and its transform, the noise spectrum ``[C, F]`` if noise is what is wrong with it, the
    indices of the samples that were hidden from the fit, the clean reference ``[C, N]`` if there is one, and a function
    that returns the network's error on an training_pair that it does not learn from. In a mixture, the ``kinds`` of its K
    sources, which the reference then holds one after the other, ``[K * C, N]``.
    """

    stft: STFT
    samples: Tensor
    noise_spectrum: Tensor | None = None
    hidden: Tensor | None = None
    reference: Tensor | None = None
    validate: Callable[[], float] | None = None
    kinds: tuple[str, ...] = ("",)


class StoppingRule(Protocol):
    """A criterion of iterates, lower is better, and how long to wait for a lower one (None: to the end).

    ``needs`` is what it cannot do without, and raises ``SettingsError`` where a context lacks it.
    """

    patience: int | None
    needs: Need | None

    def __init__(self, context: StopContext) -> None: ...

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Judge one iterate by its own estimate and the running average of estimates, both ``[C, 2, F, T]``."""
        ...


class Fixed:
    """Run all iterations and take the last."""

    patience: int | None = None
    needs: Need | None = None

    def __init__(self, context: StopContext) -> None:
        del context  # nothing about the recording matters
        self._count = 0

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Every iterate is better than the one before."""
        del output, average
        self._count += 1
        return -float(self._count)


class HeldOut:
    """Stop where samples that the fit has not seen are predicted best (for white noise).

    The caller replaces single random samples by their neighbours' mean before the fit; noise that is independent
    from sample to sample cannot be predicted there, while sound can. Raises ``SettingsError`` without such samples.
    """

    patience: int | None = 50
    needs: Need | None = "hidden"

    def __init__(self, context: StopContext) -> None:
        if context.hidden is None or context.hidden.numel() == 0:
            raise SettingsError("the recording is too short to hold out samples; use --stop fixed")
        self._stft = context.stft
        self._length = context.samples.shape[1]
        self._hidden = context.hidden
        self._observed = context.samples[:, context.hidden]

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Mean squared error of the average on the hidden samples."""
        del output
        predicted = self._stft.inverse(average, self._length)[:, self._hidden]
        return float((predicted - self._observed).square().mean())


class Validation:
    """Stop where an training_pair that the network does not learn from is done best."""

    patience: int | None = 10
    needs: Need | None = "training_pairs"

    def __init__(self, context: StopContext) -> None:
        if context.validate is None:
            raise SettingsError(f"--stop validation {_LACKING['training_pairs']}")
        self._rehearse = context.validate

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """The squared error there, relative to the sound's power."""
        del output, average
        return self._rehearse()


class Discrepancy:
    """Stop where what is left over is as strong as the noise (Morozov's principle), relative to its spectrum."""

    patience: int | None = 30
    needs: Need | None = "noise"

    def __init__(self, context: StopContext) -> None:
        if context.noise_spectrum is None:
            raise SettingsError(f"--stop discrepancy {_LACKING['noise']}")
        self._spectrogram = context.stft.forward(context.samples)
        self._noise = context.noise_spectrum

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Distance of the residual's power from the noise's, as the mean over bins of their ratio in nepers."""
        del output
        residual = (self._spectrogram - average).square().sum(dim=1).mean(dim=2)
        return abs(math.log(max(float((residual / self._noise).mean()), 1e-12)))


class WindowedVariance:
    """Stop where the estimate changes least over a window of iterations, relative to its power: ES-WMV.

    Wang et al., "Early Stopping for Deep Image Prior" (TMLR 2023). Relative, because a network that has not yet left
    zero changes least of all.
    """

    patience: int | None = 50
    needs: Need | None = None
    window = 20

    def __init__(self, context: StopContext) -> None:
        del context
        self._recent: deque[Tensor] = deque(maxlen=self.window)

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Variance over the window, over the power of its mean; infinite until the window is full."""
        del average
        self._recent.append(output)
        if len(self._recent) < self.window:
            return math.inf
        mean = sum(self._recent, torch.zeros_like(output)) / self.window
        variance = sum(float((recent - mean).square().mean()) for recent in self._recent) / self.window
        return variance / max(float(mean.square().mean()), 1e-30)


class ExponentialVariance:
    """Stop where the exponentially weighted variance of the estimate, relative to its power, is least: ES-EMV.

    Wang et al., "Early Stopping for Deep Image Prior" (TMLR 2023); it needs the memory of one estimate, not a window.
    """

    patience: int | None = 50
    needs: Need | None = None
    memory = 20

    def __init__(self, context: StopContext) -> None:
        del context
        self._mean: Tensor | None = None
        self._variance = 0.0
        self._count = 0

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """The running variance over the power of the running mean; infinite while they settle."""
        del average
        self._count += 1
        if self._mean is None:
            self._mean = output.clone()
            return math.inf
        rate = 1 / self.memory
        change = output - self._mean
        self._mean += rate * change
        self._variance = (1 - rate) * (self._variance + rate * float(change.square().mean()))
        if self._count < self.memory:
            return math.inf
        return self._variance / max(float(self._mean.square().mean()), 1e-30)


class Oracle:
    """Take the iterate with the best SNR against the clean reference: what the papers report, and no user has.

    Sources of one kind are compared with their references in the order that suits them best.
    """

    patience: int | None = None
    needs: Need | None = "reference"

    def __init__(self, context: StopContext) -> None:
        if context.reference is None:
            raise SettingsError(f"--stop oracle {_LACKING['reference']}")
        self._stft = context.stft
        self._reference = context.reference
        self._kinds = context.kinds

    def criterion(self, output: Tensor, average: Tensor) -> float:
        """Squared error of the average against the reference."""
        del output
        samples = self._stft.inverse(average, self._reference.shape[1])
        estimates, references = (each.reshape(len(self._kinds), -1) for each in (samples, self._reference))
        errors = (estimates - references[:, None]).square().mean(dim=2).cpu().numpy()
        return float(errors[range(len(errors)), match(errors, self._kinds)].mean())


STOPPING_RULES: dict[str, type[StoppingRule]] = {
    "fixed": Fixed,
    "held-out": HeldOut,
    "validation": Validation,
    "discrepancy": Discrepancy,
    "windowed-variance": WindowedVariance,
    "exponential-variance": ExponentialVariance,
    "oracle": Oracle,
}


def check_rule(name: str, given: Mapping[Need, bool]) -> None:
    """Refuse a rule that would go by what is not ``given``.

    Raises:
        SettingsError: It would.
    """
    need = STOPPING_RULES[name].needs
    if need is not None and not given.get(need, False):
        raise SettingsError(f"--stop {name} {_LACKING[need]}")
