"""What people see on the terminal; all of it goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from dapcli.pipeline.run import Progress as FitProgress

METRIC_TITLES = {
    "sdr_db": "SDR (dB)",
    "sir_db": "SIR (dB)",
    "sar_db": "SAR (dB)",
    "snr_db": "SNR (dB)",
    "psnr_db": "PSNR (dB)",
    "si_sdr_db": "SI-SDR (dB)",
    "segmental_snr_db": "segmental SNR (dB)",
    "spectral_snr_db": "spectral SNR (dB)",
    "envelope_distance": "envelope distance",
    "pesq_nb": "PESQ NB",
    "pesq_wb": "PESQ WB",
    "stoi": "STOI",
    "csig": "CSIG",
    "cbak": "CBAK",
    "covl": "COVL",
    "gaps_snr_db": "SNR in the gaps (dB)",
    "gaps_snr_db_mean": "SNR in the gaps, mean (dB)",
}
# Letters of a source's name that leave room for its metrics in 80 columns.
_NAME_WIDTH = 16
# What a note on the record is about, by how its key begins.
_ON_THE_RUN = ("restore", "degradation", "consistency")


def make_console() -> Console:
    """A console on stderr."""
    return Console(stderr=True, highlight=False)


@contextmanager
def fit_progress(
    console: Console, *, quiet: bool, noise: bool = True
) -> Iterator[Callable[[FitProgress], None] | None]:
    """A bar over all iterations of all segments, with loss, estimated noise (where there is any) and time left.

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
        TextColumn("loss {task.fields[loss]:.3g}" + ("  noise {task.fields[noise]:.3g}" if noise else "")),
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


def print_summary(console: Console, record: Mapping[str, Any], files: Sequence[tuple[str, Path]]) -> None:
    """What was done, why it stopped, how well it went and where the files are."""
    fit, prior, noise = record["fit"], record["prior"], record["noise"]
    if fit["iterations"]:
        console.print(
            f"[bold]{record['task']}[/]: {prior['name']} ({prior['parameters']:,} parameters) on {record['device']}, "
            f"{fit['iterations']} iterations in {fit['seconds']:.1f} s"
        )
        console.print(f"stopped by {fit['stopped_by']} ({fit['rule_reason']})")
    if noise["std"] is not None:
        kind = "white" if noise["white"] else "coloured"
        console.print(
            f"noise: {kind}, standard deviation {noise['std']:.3g}; "
            f"input SNR about {noise['input_snr_db_estimated']:.1f} dB"
        )
    if "degradation" in record:
        console.print(f"degradation: {damage_in_words(record)}; guided by {record['guide']}")
        console.print(consistency_in_words(record))
    if "sources" in record:
        console.print(sum_in_words(record))
    for key, note in record["notes"].items():
        if key.startswith(("restore", "consistency")):  # those on the degradation were told before the fit
            console.print(f"note: {escape(note)}", soft_wrap=True)
    if record["gain"] != 1:
        console.print(f"note: peaks passed full scale; the output is lowered by {record['gain']:.4f}")
    if any(value is not None for value in record["metrics"].values()):
        if "sources" in record:
            console.print(source_table(record["sources"]))
        else:
            console.print(metric_table({"input": all_metrics(record, "_input"), "output": all_metrics(record)}))
    for name, path in files:
        console.print(f"{escape(name)}: {escape(str(path))}", soft_wrap=True)


def notes_on_the_run(record: Mapping[str, Any]) -> list[str]:
    """The notes of a record that are not on a metric."""
    return [note for key, note in record["notes"].items() if key.startswith(_ON_THE_RUN)]


def all_metrics(record: Mapping[str, Any], which: str = "") -> dict[str, float | None]:
    """The metrics of the output, or with ``_input`` of the input; those inside of gaps begin with ``gaps_``."""
    inside = record.get(f"metrics_gaps{which}", {})
    return {**record[f"metrics{which}"], **{f"gaps_{name}": value for name, value in inside.items()}}


def damage_in_words(record: Mapping[str, Any]) -> str:
    """What was wrong with a recording, such as ``3 gaps, 150 ms missing, the longest 60 ms``."""
    degradation = record["degradation"]
    if degradation["kind"] == "gaps":
        channels = f" over {record['channels']} channels" if record["channels"] > 1 else ""
        longest = f", the longest {_in_words(degradation['longest_s'])}" if degradation["count"] > 1 else ""
        plural = "s" if degradation["count"] > 1 else ""
        missing = _in_words(degradation["missing"] / record["sample_rate"])
        words = f"{degradation['count']} gap{plural}, {missing} missing{channels}{longest}"
    elif degradation["kind"] == "clipping":
        levels = [level for level in (*degradation["low"], *degradation["high"]) if level is not None]
        low, high = (f"{edge(map(abs, levels)):.3g}" for edge in (min, max))
        words = f"{100 * degradation['clipped']:.3g} % of the samples clipped, at {low if low == high else f'{low} to {high}'}"
    else:
        words = f"{round(2 / degradation['step'])} levels, {degradation['step']:.3g} apart"
    return f"{words} ({degradation['source']})"


def _in_words(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def consistency_in_words(record: Mapping[str, Any]) -> str:
    """How far the estimate and the output are from what is known of the input."""
    consistency = record["consistency"]
    if consistency["outside_before"] is None:
        return "nothing was changed"
    if record["degradation"]["kind"] == "gaps" and consistency["enforced"]:
        return "known samples are as they were"
    off = f"{100 * consistency['outside_before']:.3g} % of the estimate's samples were off what is known"
    return f"{off}, and are set right" if consistency["enforced"] else f"{off}, and were left so"


def sum_in_words(record: Mapping[str, Any]) -> str:
    """How far the sources of a separation are from summing to the mixture."""
    consistency = record["consistency"]
    if consistency["enforced"]:
        return "the sources sum to the mixture"
    return f"the sum of the sources is up to {consistency['residual']:.3g} of full scale off the mixture, and left so"


def source_table(sources: Sequence[Mapping[str, Any]]) -> Table:
    """A table with the metrics of every source in a row, and below it those of the mixture in its place."""
    metrics = list(sources[0]["metrics"])
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("source", overflow="fold", max_width=_NAME_WIDTH)
    for metric in metrics:
        table.add_column(METRIC_TITLES[metric].replace(" (dB)", "\n(dB)"), justify="right")
    for source in sources:
        for name, key in ((source["name"], "metrics"), ("  mixture", "metrics_input")):
            values = (source[key][metric] for metric in metrics)
            table.add_row(escape(name), *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def metric_table(columns: Mapping[str, Mapping[str, float | None]]) -> Table:
    """A table with one row per metric and one column per file; a metric without a value is a dash."""
    table = Table("metric", box=None, pad_edge=False)
    for name in columns:
        table.add_column(escape(name), justify="right", overflow="fold")
    for metric, title in METRIC_TITLES.items():
        if not all(metric in column for column in columns.values()):
            continue
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
