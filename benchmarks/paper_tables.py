"""The papers' tables by their own settings, and those of noise by dap's: see benchmarks/paper_tables.sh.

    python benchmarks/paper_tables.py OUTDIR CLIPS [--device cuda] [--jobs 8] [--clips 12] [--limit table1=200 ...]

CLIPS has folders digits, speech, piano, drums and noise. Speech is cut to 2 s, all others to 1 s, degraded and measured
as `dap evaluate TASK --protocol paper` does, whose folders these are (OUTDIR/stages/STAGE-KIND): run again, it goes on
where it was, and `dap evaluate` with the same settings adds pages to listen to. Unlike `dap evaluate`, which has a
blind and an oracle fit of each prior, a stage has one of the two: those of the papers' tables the oracle, whose curve
also tells what a fixed number of iterations gives; `quality`, `generate` and `environment`, which stop blindly, the
blind one. All stages share one pool of processes. A stage with a --limit in seconds ends with the clips that all its
methods have finished.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dapcli.evaluation.clips import collect, draw_clips
from dapcli.evaluation.folder import Folder, Record
from dapcli.evaluation.methods import make_methods
from dapcli.evaluation.protocols import make_protocol
from dapcli.evaluation.run import Evaluation, restore_unit
from dapcli.evaluation.tables import Difference, compare, summarize
from dapcli.settings import PAPER_RATE
from dapcli.tasks import TASKS
from dapcli.tasks.speed import describe_machine

# Seconds of a clip; sources are those of a mixture.
KINDS = {"digits": 1.0, "speech": 2.0, "piano": 1.0, "piano+drums": 1.0}
SOUNDS = ("digits", "speech", "piano")
PRIORS = ("conv", "dilated", "exp", "exp-dense")
METRICS = ("snr_db", "pesq_nb")
FRAMES_METRICS = ("spectral_snr_db", "envelope_distance", "gaps_snr_db")
SOURCE_METRICS = tuple(
    f"{metric}_{source}" for metric in ("sdr_db", "sir_db", "spectral_snr_db", "envelope_distance") for source in (1, 2)
)
HARMONIC_METRICS = ("snr_db", "csig", "cbak", "covl", "pesq_wb", "segmental_snr_db")


@dataclass(frozen=True)
class Stage:
    """One table: a task by a preset and a protocol, stopped by the reference or not."""

    name: str
    task: str
    preset: str
    protocol: str
    oracle: bool
    kinds: tuple[str, ...] = SOUNDS
    priors: tuple[str, ...] = PRIORS
    metrics: tuple[str, ...] = METRICS
    limit: float = math.inf


HARMONIC = ("conv7", "dilated7", "harmonic")
STAGES = (
    Stage("table1", "denoise", "paper", "gaussian", True),
    Stage("table2", "denoise", "paper", "environmental", True),
    Stage("table3", "inpaint", "paper", "frames", True, ("digits", "speech"), metrics=FRAMES_METRICS),
    Stage("table4", "separate", "paper", "mixture", True, ("piano+drums",), metrics=SOURCE_METRICS),
    Stage("harmonic", "denoise", "harmonic-paper", "gaussian", True, priors=HARMONIC, metrics=HARMONIC_METRICS),
    Stage("quality", "denoise", "quality", "gaussian", False),
    Stage("environment", "denoise", "quality", "environmental", False),
    Stage("generate", "denoise", "generate", "gaussian", False),
)


def make_evaluation(stage: Stage, kind: str, arguments: argparse.Namespace) -> Evaluation:
    """What `dap evaluate` would make of the same, but for the methods."""
    settings = TASKS[stage.task].presets[stage.preset]
    if stage.preset != "quality":
        settings = replace(settings, iterations=min(settings.iterations, arguments.iterations))
    if arguments.hop and stage.oracle:
        settings = replace(settings, hop=arguments.hop)
    if arguments.precision:
        settings = replace(settings, precision=arguments.precision)
    if arguments.toy:
        settings = replace(
            settings, iterations=4, finetune_iterations=min(settings.finetune_iterations, 2), base_channels=8
        )
    outside = arguments.out / "stages"
    values = {"noise": tuple(collect([arguments.clips_dir / "noise"], outside=outside))}
    protocol = make_protocol(stage.task, stage.protocol, values if stage.protocol == "environmental" else {})
    methods = make_methods(
        stage.task, stage.priors, (), settings, arguments.device, oracle=stage.oracle, blind=not stage.oracle
    )
    groups = [collect([arguments.clips_dir / folder], outside=outside) for folder in kind.split("+")]
    drawn = draw_clips(groups, KINDS[kind], arguments.clips, 0)
    return Evaluation(protocol, settings, arguments.device, KINDS[kind], drawn.clips, methods, PAPER_RATE)


def work(stage: Stage, evaluations: dict[str, tuple[Evaluation, Folder]], pool: ProcessPoolExecutor, jobs: int) -> None:
    """Do the units that are missing, clip by clip of all kinds in turn, until the limit."""
    pending = list(in_turns(evaluations))
    started = time.perf_counter()
    running: set[Future[str | None]] = set()
    while (pending and time.perf_counter() - started < stage.limit) or running:
        while pending and len(running) < jobs and time.perf_counter() - started < stage.limit:
            kind, index, number = pending.pop(0)
            evaluation, folder = evaluations[kind]
            unit = evaluation.clips[index], evaluation.methods[number]
            running.add(pool.submit(restore_unit, evaluation, folder, unit))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for reason in filter(None, (future.result() for future in done)):
            print(f"failed: {reason}", file=sys.stderr, flush=True)
        left = f"{stage.name}: {len(pending) + len(running)} left after {time.perf_counter() - started:.0f} s"
        print(left, file=sys.stderr, flush=True)


def in_turns(evaluations: dict[str, tuple[Evaluation, Folder]]) -> Iterator[tuple[str, int, int]]:
    for index in range(max(len(evaluation.clips) for evaluation, _ in evaluations.values())):
        for kind, (evaluation, folder) in evaluations.items():
            for number, method in enumerate(evaluation.methods):
                if index < len(evaluation.clips) and folder.load(evaluation.clips[index], method) is None:
                    yield kind, index, number


def finished(evaluation: Evaluation, folder: Folder) -> list[Record]:
    """The records of the clips that all methods have finished."""
    records: list[Record] = []
    for clip in evaluation.clips:
        found = [record for method in evaluation.methods if (record := folder.load(clip, method)) is not None]
        records += found if len(found) == len(evaluation.methods) else []
    return records


def table(stage: Stage, records: dict[str, list[Record]], iterations: int) -> str:
    """Means over clips by kind of clip, and the differences from the last prior on the same clips."""
    best = stage.priors[-1]
    columns, rows = [], {name: [name] for name in ("input", *stage.priors)}
    for kind, each in records.items():
        columns += [f"{kind} ({len({record['clip'] for record in each})})", f"less {best} (95 %)"]
        columns += ["best iteration: median (most)", f"SNR after {iterations} (dB)"] if stage.oracle else []
        means = {row.method: row for row in summarize(each, stage.metrics)}
        apart = {(other.method, other.metric): other for other in compare(each, stage.metrics, best)}
        for name, row in rows.items():
            cells = [means[name].cells[metric] if name in means else None for metric in stage.metrics]
            row.append(" / ".join(f"{cell.mean:.2f}" for cell in cells if cell))
            others = [apart[name, metric] for metric in stage.metrics if (name, metric) in apart]
            row.append(" / ".join(difference(other) for other in others if name != "input"))
            if stage.oracle:
                fits = [record["fit"] for record in each if record["method"] == name and record["fit"]]
                arrived = [fit["best_iteration"] for fit in fits]
                row.append(f"{statistics.median(arrived):.0f} ({max(arrived)})" if arrived else "")
                row.append(f"{statistics.mean(fit['snr_db'][-1] for fit in fits):.2f}" if fits else "")
    stop = "oracle" if stage.oracle else "blind"
    lines = [f"\n## {stage.name}: {stage.task}, preset {stage.preset}, {stop}, {stage.protocol}\n"]
    lines += [" / ".join(stage.metrics) + "\n"]
    lines += [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows.values())])


def difference(other: Difference) -> str:
    """A mean difference with its interval."""
    return f"{other.mean:+.2f}" + (f" [{other.low:+.2f}, {other.high:+.2f}]" if other.low is not None else "")


def begin() -> None:
    torch.set_num_threads(1)


def main(stages: Sequence[Stage] = STAGES) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for tables.md, records.json and stages")
    parser.add_argument("clips_dir", type=Path, help="folder with folders of clips")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--jobs", type=int, default=8, help="fits at the same time")
    parser.add_argument("--clips", type=int, default=12, help="of each kind, at the most")
    parser.add_argument("--iterations", type=int, default=2000, help="at the most, but for preset quality")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], help="kinds of clips")
    parser.add_argument("--hop", type=float, help="s, in place of the papers' 0.004, in stages of theirs")
    parser.add_argument("--precision", help="in place of the presets': auto, float32 or bfloat16")
    parser.add_argument("--limit", action="append", default=[], help="seconds of a stage, as table1=200; 0 skips it")
    parser.add_argument("--toy", action="store_true", help="tiny networks and hardly any iterations")
    arguments = parser.parse_args()
    limits = {name: float(seconds) for name, _, seconds in (each.partition("=") for each in arguments.limit)}
    root = arguments.out / "stages"
    root.mkdir(parents=True, exist_ok=True)
    tables = arguments.out / "tables.md"
    machine = describe_machine()
    tables.write_text(f"{machine['devices'].get('cuda:0', machine['processor'])}, torch {machine['torch']}\n")
    kept: dict[str, dict[str, list[Record]]] = {}
    opened = ExitStack()
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    pool = ProcessPoolExecutor(arguments.jobs, context, initializer=begin)
    for stage in (replace(each, limit=limits.get(each.name, each.limit)) for each in stages):
        evaluations: dict[str, tuple[Evaluation, Folder]] = {}
        for kind in [kind for kind in stage.kinds if kind in arguments.kinds] if stage.limit else ():
            evaluation, folder = make_evaluation(stage, kind, arguments), Folder(root / f"{stage.name}-{kind}")
            opened.enter_context(folder.open(evaluation.configuration(), overwrite=False))
            evaluations[kind] = evaluation, folder
        if not evaluations:
            continue
        work(stage, evaluations, pool, arguments.jobs)
        kept[stage.name] = {kind: finished(*pair) for kind, pair in evaluations.items()}
        iterations = next(iter(evaluations.values()))[0].settings.iterations
        with tables.open("a") as file:
            file.write(table(stage, kept[stage.name], iterations) + "\n")
        (arguments.out / "records.json").write_text(json.dumps(kept))
    pool.shutdown()
    opened.close()
    print(tables.read_text())


if __name__ == "__main__":
    main()
