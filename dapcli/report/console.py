"""What people see on the terminal; all of it goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from dapcli.task import Progress as FitProgress

METRIC_TITLES = {
    "snr_db": "SNR (dB)",
    "psnr_db": "PSNR (dB)",
    "si_sdr_db": "SI-SDR (dB)",
    "segmental_snr_db": "segmental SNR (dB)",
    "spectral_snr_db": "spectral SNR (dB)",
    "envelope_distance": "envelope distance",
    "pesq_nb": "PESQ NB",
    "pesq_wb": "PESQ WB",
    "stoi": "STOI",
}


def make_console() -> Console:
    """A console on stderr."""
    return Console(stderr=True, highlight=False)


@contextmanager
def fit_progress(console: Console, *, quiet: bool) -> Iterator[Callable[[FitProgress], None] | None]:
    """A bar over all iterations of all segments, with loss, estimated noise and time left.

    Yields what to call after every iteration, or None when nobody would see it: with ``quiet``, or when stderr is not
    a terminal.
    """
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3g}  noise {task.fields[noise]:.3g}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fitting", total=None, loss=0.0, noise=0.0)

        def update(progress: FitProgress) -> None:
            if progress.segments == 1:
                name = "fitting"
            elif progress.segment is None:
                name = "learning"
            else:
                name = f"segment {progress.segment + 1}/{progress.segments}"
            bar.update(
                task,
                description=name,
                total=progress.total,
                completed=progress.completed,
                loss=progress.step.loss,
                noise=progress.noise_std,
            )

        yield update


def print_summary(console: Console, record: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """What was done, why it stopped, how well it went and where the files are."""
    fit, prior, noise = record["fit"], record["prior"], record["noise"]
    if fit["iterations"]:
        console.print(
            f"[bold]{record['task']}[/]: {prior['name']} ({prior['parameters']:,} parameters) on {record['device']}, "
            f"{fit['iterations']} iterations in {fit['seconds']:.1f} s"
        )
        console.print(f"stopped by {fit['stopped_by']} ({fit['rule_reason']})")
        kind = "white" if noise["white"] else "coloured"
        console.print(
            f"noise: {kind}, standard deviation {noise['std']:.3g}; "
            f"input SNR about {noise['input_snr_db_estimated']:.1f} dB"
        )
    for key, note in record["notes"].items():
        if key.startswith("restore"):
            console.print(f"note: {escape(note)}")
    if record["gain"] != 1:
        console.print(f"note: peaks passed full scale; the output is lowered by {record['gain']:.4f}")
    if any(value is not None for value in record["metrics"].values()):
        console.print(metric_table({"input": record["metrics_input"], "output": record["metrics"]}))
    for name, path in files.items():
        console.print(f"{name}: {escape(path)}", soft_wrap=True)


def metric_table(columns: Mapping[str, Mapping[str, float | None]]) -> Table:
    """A table with one row per metric and one column per file; a metric without a value is a dash."""
    table = Table("metric", box=None, pad_edge=False)
    for name in columns:
        table.add_column(escape(name), justify="right", overflow="fold")
    for metric, title in METRIC_TITLES.items():
        values = [column[metric] for column in columns.values()]
        table.add_row(title, *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def machine_table(machine: Mapping[str, Any]) -> Table:
    """Versions, processor and devices, one in a row."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in machine.items():
        if isinstance(value, Mapping):
            for device, description in value.items():
                table.add_row(escape(device), escape(description))
        elif value is not None:
            table.add_row(name, escape(str(value)))
    return table


def speed_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Seconds per iteration of each prior on each device, and how long a recording takes if that was asked for."""
    table = Table("prior", "device", "type", box=None, pad_edge=False)
    table.add_column("s per iteration", justify="right")
    estimates = any(row["estimate"] is not None for row in rows)
    if estimates:
        table.add_column("estimate", justify="right")
    for row in rows:
        cells = [row["prior"], row["device"], row["dtype"]]
        cells.append(escape(row["note"]) if row["seconds"] is None else f"{row['seconds']:.4f}")
        if estimates:
            cells.append("-" if row["estimate"] is None else duration(row["estimate"]))
        table.add_row(*cells)
    return table


def duration(seconds: float) -> str:
    """Seconds as people say them: 5.2 s, or h:mm:ss from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
