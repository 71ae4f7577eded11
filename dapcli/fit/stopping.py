"""When to stop a fit.

A deep prior explains the sound of a recording before its noise, and the noise if one lets it. A rule gives every
iterate a criterion; the loop keeps the iterate where that is lowest, and stops once it has not been lower for
``patience`` iterations. To add a rule, write a class like those below and give it a line in :data:`STOPPING_RULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from dapcli.errors import SettingsError
from dapcli.signal.sources import match
from dapcli.signal.stft import STFT

#: What a rule may go by besides the recording: samples that are hidden from the fit, a validation error, the truth.
Need = Literal["hidden", "validation", "reference"]

# What people read where it is not there.
_LACKING: dict[Need, str] = {
    "hidden": "needs a noisy recording, which this task has not; leave it out",
    "validation": "needs a validation error, which this estimator does not compute; leave it out",
    "reference": "compares with the truth; give it with --reference",
}


@dataclass(frozen=True)
class Step:
    """What one step of an objective found.

    ``loss`` is to be differentiated, one number or ``[B]`` of B segments side by side. ``estimate``
    ``[K, C, 2, F, T]``, or with the channels of all segments, is detached. ``observed`` broadcasts against it
    and is what it is compared with: the recording's spectrogram, or the sources that a mixture begins as. ``state`` is
    for the next step. ``validation`` is the error on what the network does not learn from, relative to that of the
    initial estimate: below 1 the network helps.
    """

    loss: Tensor
    estimate: Tensor
    observed: Tensor
    state: Any = None
    validation: Tensor | None = None


@dataclass(frozen=True)
class StopContext:
    """What a rule may know.

    The recording ``[C, N]`` and its transform, the indices of the samples that were hidden from the fit, and the clean
    references ``[K, C, N]`` of the K sources of these ``types``.
    """

    stft: STFT
    samples: Tensor
    hidden: Tensor | None = None
    references: Tensor | None = None
    types: tuple[str, ...] = ("",)


class StoppingRule(ABC):
    """A criterion of iterates, lower is better.

    The loop waits ``patience`` iterations for a lower one, to the end where it is None. ``needs`` is what a rule cannot
    do without (see :func:`check_rule`).
    """

    patience: ClassVar[int | None] = None
    needs: ClassVar[Need | None] = None

    def __init__(self, context: StopContext) -> None:
        self._context = context

    @abstractmethod
    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:
        """Judge an iterate by its step and the running average ``[K, C, 2, F, T]`` of estimates."""

    def residual(self, step: Step, average: Tensor) -> float:
        """What the average leaves over of the recording, as a root mean square over the STFT's planes."""
        return float((step.observed - average).square().mean().sqrt())


class Fixed(StoppingRule):
    """Run all iterations and take the last."""

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:  # noqa: ARG002
        """Every iterate is better than the one before."""
        return -float(iteration)


class HeldOut(StoppingRule):
    """Stop where samples that the fit has not seen are predicted best (for white noise).

    The caller replaces single random samples by their neighbours' mean before the fit; noise that is independent
    from sample to sample cannot be predicted there, while sound can. Raises ``SettingsError`` without such samples.
    """

    patience: ClassVar[int | None] = 50
    needs: ClassVar[Need | None] = "hidden"

    def __init__(self, context: StopContext) -> None:
        super().__init__(context)
        if context.hidden is None or context.hidden.numel() == 0:
            raise SettingsError("the recording is too short to hold out samples; use --stop fixed")

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:  # noqa: ARG002
        """Mean squared error of the average on the hidden samples."""
        samples, hidden = self._context.samples, self._context.hidden
        predicted = self._context.stft.inverse(average[0], samples.shape[-1])
        return float((predicted[:, hidden] - samples[:, hidden]).square().mean())


class Validation(StoppingRule):
    """Stop where the error on what the network does not learn from is lowest."""

    patience: ClassVar[int | None] = 10
    needs: ClassVar[Need | None] = "validation"

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:  # noqa: ARG002
        """The validation error of the step."""
        assert step.validation is not None  # see check_rule
        return float(step.validation)


class Oracle(StoppingRule):
    """Take the iterate with the best SNR against the clean references: what the papers report, and no user has.

    Sources of one type are compared with their references in the order that suits them best.
    """

    needs: ClassVar[Need | None] = "reference"

    def __init__(self, context: StopContext) -> None:
        super().__init__(context)
        if context.references is None:
            raise SettingsError(f"--stop oracle {_LACKING['reference']}")
        self._references = context.references

    def criterion(self, iteration: int, step: Step, average: Tensor) -> float:  # noqa: ARG002
        """Squared error of the average against the references, relative to their power."""
        estimates = self._context.stft.inverse(average, self._references.shape[-1]).flatten(1)
        errors = (estimates - self._references.flatten(1)[:, None]).square().mean(dim=2).cpu().numpy()
        power = float(self._references.square().mean()) or 1.0
        return float(errors[range(len(errors)), match(errors, self._context.types)].mean()) / power

    def residual(self, step: Step, average: Tensor) -> float:
        """The same of the samples of an average of one source, as white noise of that power would have it."""
        if len(average) > 1:
            return super().residual(step, average)
        left = self._context.samples - self._context.stft.inverse(average[0], self._references.shape[-1])
        return float((left.square().mean() * self._context.stft.white_gain).sqrt())


STOPPING_RULES: dict[str, type[StoppingRule]] = {
    "fixed": Fixed,
    "held-out": HeldOut,
    "validation": Validation,
    "oracle": Oracle,
}


def check_rule(name: str, given: Collection[str]) -> None:
    """Refuse a rule that would go by what is not ``given``.

    Raises:
        SettingsError: It would.
    """
    need = STOPPING_RULES[name].needs
    if need is not None and need not in given:
        raise SettingsError(f"--stop {name} {_LACKING[need]}")
