"""The papers' tables of noise by their own settings, and by dap's: see benchmarks/paper_tables.sh.

    python benchmarks/paper_tables.py OUTDIR CLIPS [--device cuda] [--jobs 8] [--clips 12] [--limit paper=200 ...]

CLIPS has folders digits, speech, piano and, for Table 2, noise. Digits and piano are cut to 1 s, speech to 2 s,
degraded and measured as `dap evaluate denoise` does, whose folders these are (OUTDIR/stages/STAGE-KIND): run again, it
goes on where it was, and `dap evaluate` with the same settings adds pages to listen to. Unlike `dap evaluate`, which
has a blind and an oracle fit of each prior, a stage has one of the two: `paper` and `harmonic` the oracle, whose curve
also tells what a fixed number of iterations gives; `quality` and `generate`, which stop blindly, the blind one. All
stages share one pool of processes. A stage with a --limit in seconds ends with the clips that all its methods have
finished.
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
from dapcli.evaluation.tables import compare, summarize
from dapcli.tasks import TASKS
from dapcli.tasks.speed import describe_machine

KINDS = {"digits": 1.0, "speech": 2.0, "piano": 1.0}
PRIORS = ("conv", "dilated", "exp", "exp-dense")
METRICS = ("snr_db", "pesq_nb")
HARMONIC_METRICS = ("snr_db", "csig", "cbak", "covl", "pesq_wb", "segmental_snr_db")


@dataclass(frozen=True)
class Stage:
    """One table: a preset with white noise or that of an environment, stopped by the reference or not."""

    name: str
    preset: str
    noisy: str
    oracle: bool
    limit: float = math.inf
    priors: tuple[str, ...] = PRIORS
    metrics: tuple[str, ...] = METRICS


STAGES = (
    Stage("paper", "paper", "gaussian", True),
    Stage(
        "harmonic", "harmonic-paper", "gaussian", True, math.inf, ("conv7", "dilated7", "harmonic"), HARMONIC_METRICS
    ),
    Stage("quality", "quality", "gaussian", False),
    Stage("generate", "generate", "gaussian", False),
    Stage("environment", "quality", "environmental", False),
    Stage("environment-paper", "paper", "environmental", True),
)


def make_evaluation(stage: Stage, kind: str, arguments: argparse.Namespace) -> Evaluation:
    """What `dap evaluate` would make of the same, but for the methods."""
    settings = TASKS["denoise"].presets[stage.preset]
    if stage.preset != "quality":
        settings = replace(settings, iterations=min(settings.iterations, arguments.iterations))
    if arguments.precision:
        settings = replace(settings, precision=arguments.precision)
    if arguments.toy:
        settings = replace(
            settings, iterations=4, finetune_iterations=min(settings.finetune_iterations, 2), base_channels=8
        )
    outside = arguments.out / "stages"
    values = {"noise": tuple(collect([arguments.clips_dir / "noise"], outside=outside))}
    protocol = make_protocol("denoise", stage.noisy, values if stage.noisy == "environmental" else {})
    methods = make_methods("denoise", stage.priors, (), settings, arguments.device, oracle=stage.oracle)
    if stage.oracle:
        methods = tuple(each for each in methods if each.oracle == "reference" or each.name == "input")
    files = collect([arguments.clips_dir / kind], outside=outside)
    drawn = draw_clips([files], KINDS[kind], arguments.clips, 0)
    return Evaluation(protocol, settings, arguments.device, KINDS[kind], drawn.clips, methods)


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
    columns, rows = [], {name: [f"{name}"] for name in ("input", *stage.priors)}
    for kind, each in records.items():
        columns += [f"{kind} ({len({record['clip'] for record in each})})", f"SNR against {best} (95 %)"]
        columns += ["best iteration: median (most)", f"SNR after {iterations} (dB)"] if stage.oracle else []
        means = {row.method: row for row in summarize(each, stage.metrics)}
        apart = {other.method: other for other in compare(each, stage.metrics[:1], best) if other.method != "input"}
        for name, row in rows.items():
            cells = [means[name].cells[metric] if name in means else None for metric in stage.metrics]
            row.append(" / ".join(f"{cell.mean:.2f}" for cell in cells if cell))
            other = apart.get(name)
            interval = f"[{other.low:+.2f}, {other.high:+.2f}]" if other and other.low is not None else ""
            row.append(f"{other.mean:+.2f} {interval}" if other else "")
            if stage.oracle:
                fits = [record["fit"] for record in each if record["method"] == name and record["fit"]]
                arrived = [fit["best_iteration"] for fit in fits]
                row.append(f"{statistics.median(arrived):.0f} ({max(arrived)})" if arrived else "")
                row.append(f"{statistics.mean(fit['snr_db'][-1] for fit in fits):.2f}" if fits else "")
    stop = "oracle" if stage.oracle else "blind"
    lines = [f"\n## {stage.name}: preset {stage.preset}, {stop}, {stage.noisy} noise, {' / '.join(stage.metrics)}\n"]
    lines += [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows.values())])


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
    parser.add_argument("--precision", help="in place of the presets': auto, float32 or bfloat16")
    parser.add_argument("--limit", action="append", default=[], help="seconds of a stage, as paper=200; 0 skips it")
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
        for kind in arguments.kinds if stage.limit else ():
            evaluation, folder = make_evaluation(stage, kind, arguments), Folder(root / f"{stage.name}-{kind}")
            opened.enter_context(folder.open(evaluation.configuration(), overwrite=False))
            evaluations[kind] = evaluation, folder
        if not evaluations:
            continue
        work(stage, evaluations, pool, arguments.jobs)
        kept[stage.name] = {kind: finished(*pair) for kind, pair in evaluations.items()}
        settings = evaluations[arguments.kinds[0]][0].settings
        with tables.open("a") as file:
            file.write(table(stage, kept[stage.name], settings.iterations) + "\n")
        (arguments.out / "records.json").write_text(json.dumps(kept))
    pool.shutdown()
    opened.close()
    print(tables.read_text())


if __name__ == "__main__":
    main()
