"""One class or function and one line: what is added to a registry is on the command line, with few frames between."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from traceback import walk_stack
from typing import Any, ClassVar

import numpy as np
import pytest
from torch import Tensor, nn

import dapcli
from dapcli.cli.task import TaskCommand
from dapcli.fit import STOPPING_RULES, fit
from dapcli.fit.stopping import Fixed
from dapcli.objectives.generate import Generation
from dapcli.pipeline.run import Pipeline
from dapcli.pipeline.solver import Solver
from dapcli.priors import PRIORS, Prior
from dapcli.priors.network import PriorNetwork
from dapcli.settings import Settings, option
from dapcli.tasks import TASKS, Estimator, Task
from dapcli.tasks.check import check
from dapcli.tasks.options import TaskOptions
from dapcli.tasks.problem import Problem
from tests.command_line import COMMANDS, TINY, Dap, ok, read, record_of

HERE = "tests.test_registries"


# A task with an option and a setting of its own


@dataclass(frozen=True)
class InvertOptions(TaskOptions):
    remark: tuple[str, ...] = option((), "What to say.", panel="Options", metavar="TEXT")


@dataclass(frozen=True)
class InvertSettings(Settings):
    strength: float = option(1.0, "Gain of the inverted recording.", above=0)


class Inverter(Solver):
    def fit_segments(self, segments: Any, reports: Any) -> Any:
        (segment,), (report,) = segments, reports
        setup = self.setup()
        objective = self.objective(setup.tensor(segment.samples), [], setup)
        network, rule = self.build(objective, setup), self.rule_for(segment, setup)
        (fitted,) = fit(network, objective, [rule], self.settings, self.dtype, setup.generator, [report])
        strength: float = self.settings.strength  # type: ignore[attr-defined]
        return [(-strength * setup.tensor(segment.samples)[None], self.record(fitted, network, segment))]


def invert(recording: Any, settings: Any, *, device: str, parallel: int | None, references: Any, **how: Any) -> Any:
    given = check(
        TASKS["invert"], settings, recording.rate, device=device, parallel=parallel, references=bool(references)
    )
    return Pipeline(recording, Inverter(**given), references, how["on_step"], how["store"]).run(parallel)


def pose(recording: Any, options: InvertOptions, path: Path) -> Problem[None]:
    return Problem(recording, notes=options.remark)


INVERT = Task(
    "Turn a recording upside down.",
    f"{HERE}:invert",
    f"{HERE}:pose",
    (),
    InvertOptions,
    {"quality": InvertSettings(estimator="generate", iterations=1, base_channels=2, optimizer="adam")},
    {"generate": Estimator("dapcli.objectives.generate:Generation", "fixed", "it is simple", "paint it out of noise")},
    ("snr_db",),
)


def test_a_new_task_with_its_options_and_settings(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "invert", INVERT)
    remarks = ("--remark", "one", "--remark", "two")
    run = ok(dap("invert", "brief.wav", "out.wav", "--strength", "0.5", *remarks, "--device", "cpu"))
    assert "note: one\nnote: two\n" in run.err
    np.testing.assert_allclose(read(folder / "out.wav"), -0.5 * read(folder / "brief.wav"), atol=2**-15)
    record = record_of(folder / "out.wav")
    assert (record["task"], record["settings"]["strength"]) == ("invert", 0.5)
    assert "--strength must be above 0" in dap("invert", "brief.wav", "new.wav", "--strength", "0").err


# Lines of other registries


class Plain(PriorNetwork):
    """One convolution."""

    seen: ClassVar[list[list[str]]] = []

    def __init__(self, in_channels: int, out_channels: int, settings: Settings) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(stack())
        output: Tensor = self.layer(z)
        return output

    def zero_output(self) -> None:
        nn.init.zeros_(self.layer.weight)

    def receptive_field(self) -> tuple[float, float]:
        return 1, 1


class Louder(Generation):
    """Generation with an estimate of twice the size."""

    def _read(self, output: Tensor) -> Tensor:
        return 2 * output


class First(Fixed):
    """The first iterate is the best."""

    def criterion(self, iteration: int, step: Any, average: Tensor) -> float:
        return float(iteration)


def test_a_new_prior_objective_and_stopping_rule(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRIORS, "plain", Prior("one convolution", Plain))
    louder = Estimator(f"{HERE}:Louder", "first", "it is loud", "shout")
    monkeypatch.setitem(TASKS["denoise"].estimators, "louder", louder)
    monkeypatch.setitem(STOPPING_RULES, "first", First)
    ok(dap("denoise", "brief.wav", "out.wav", *TINY, "--prior", "plain", "--estimator", "louder"))
    record = record_of(folder / "out.wav")
    assert (record["prior"]["parameters"], record["settings"]["estimator"]) == (6, "louder")
    assert (record["fit"]["best_iteration"], record["fit"]["stopped_by"].split(":")[0]) == (1, "first")


# What lies between


def stack() -> list[str]:
    """The functions of dap between the command and its caller, in this thread and in the one that waits for it."""
    root = str(Path(dapcli.__file__).parent)
    frames = sys._current_frames()
    codes = []
    for thread in {threading.get_ident(), threading.main_thread().ident or 0}:
        inner = (frame.f_code for frame, _ in walk_stack(frames[thread]))
        codes += [*takewhile(lambda code: code is not TaskCommand.run.__code__, inner)]
    return [code.co_name for code in codes if code.co_filename.startswith(root) and not code.co_name.startswith("<")]


@pytest.mark.parametrize("task", ["denoise", "separate", "dequantize"])
def test_few_frames_lie_between_the_command_and_a_network(
    task: str, dap: Dap, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRIORS, "plain", Prior("one convolution", Plain))
    Plain.seen.clear()
    ok(dap(*COMMANDS[task], "--prior", "plain"))
    assert Plain.seen
    waiting = min(Plain.seen, key=len)  # in between, the command also shows how far the fit is
    assert len(waiting) + 2 <= 10, waiting  # with those of the command, and of the network, which is of a test
