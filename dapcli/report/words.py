"""A record in words, for the terminal and the pages alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import log10
from typing import Any

#: Titles of metrics, in the order of tables. A metric without a line here is shown by its name.
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
# Keys of notes that are on the run and not on a metric, by how they begin.
_ON_THE_RUN = ("input", "output", "restore", "degradation", "consistency", "gain", "alignment")
# A validation error that is lower by less, relative to the initial estimate's, is that of a network without effect.
_NO_EFFECT = 5e-4


def metric_title(metric: str) -> str:
    """A metric as people write it, with the number of its source where it ends with one."""
    if metric in METRIC_TITLES:
        return METRIC_TITLES[metric]
    name, _, number = metric.rpartition("_")
    if name not in METRIC_TITLES or not number.isdecimal():
        return metric
    title, unit, _ = METRIC_TITLES[name].partition(" (dB)")
    return f"{title} {number}{unit}"


def headline(record: Mapping[str, Any]) -> str:
    """What was done, how long it took and where it is, such as ``15.3 dB of noise removed in 6.1 s: out.wav``."""
    lowered = record["noise"]["removed_db"]
    if not record["fit"]["segments"]:
        done = "nothing to do"
    elif "sources" in record:
        done = count(len(record["sources"]), "source")
    elif "degradation" in record:
        done = f"{_DEGRADATIONS[record['degradation']['kind']](record)}, restored"
    else:
        done = "done" if lowered is None else f"{lowered:.1f} dB of noise removed"
    return f"{done} in {duration(record['seconds'])}: {record['output']}"


def summary(record: Mapping[str, Any]) -> list[str]:
    """Lines on what was done, why it stopped, what the network added, and what was known of the recording."""
    lines = _fit(record)
    noise = record["noise"]
    if noise["std"] is not None:
        kind = "white" if noise["white"] else "coloured"
        snr = noise["input_snr_db_estimated"]
        lines.append(f"noise: {kind}, standard deviation {noise['std']:.3g}; input SNR about {snr:.1f} dB")
    if "degradation" in record:
        lines.append(f"degradation: {degradation_in_words(record)}; initial estimate: {record['initial_estimate']}")
    if "sources" in record:
        names = ", ".join(
            source["name"] if source["type"] in source["name"] else f"{source['name']} (taken for {source['type']})"
            for source in record["sources"]
        )
        lines.append(f"estimates of {len(record['sources'])} sources: {names}")
    if "consistency" in record:
        lines.append(_consistency(record))
    return lines


def notes_on_the_run(record: Mapping[str, Any], keys: tuple[str, ...] = _ON_THE_RUN) -> list[str]:
    """The notes of a record whose keys begin with one of ``keys``: all that are not on a metric."""
    return [note for key, note in record["notes"].items() if key.startswith(keys)]


def all_metrics(record: Mapping[str, Any], which: str = "") -> dict[str, float | None]:
    """The metrics of the output, or with ``_input`` of the input; those inside of gaps begin with ``gaps_``."""
    inside = record.get(f"metrics_gaps{which}", {})
    return {**record[f"metrics{which}"], **{f"gaps_{name}": value for name, value in inside.items()}}


def degradation_in_words(record: Mapping[str, Any]) -> str:
    """What was wrong with a recording, such as ``3 gaps, 150 ms missing, the longest 60 ms (given)``."""
    degradation = record["degradation"]
    return f"{_DEGRADATIONS[degradation['kind']](record)} ({degradation['source']})"


def duration(seconds: float) -> str:
    """Seconds as people say them: 20 ms, 5.2 s, or h:mm:ss from a minute on."""
    if seconds >= 59.95:
        return str(timedelta(seconds=round(seconds)))
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def count(number: int, noun: str) -> str:
    """So many of something, such as ``2 clips``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _fit(record: Mapping[str, Any]) -> list[str]:
    fit, prior = record["fit"], record["prior"]
    segments = len(fit["segments"])
    if not segments:
        return ["nothing was fitted; the output holds the same sound as the input"]
    parts = f" in {segments} segments" if segments > 1 else ""
    if not fit["iterations"]:
        initial = record.get("initial_estimate", "classical separation")
        return [f"no network; {initial} alone{parts} on {record['device']}, {duration(record['seconds'])}"]
    lines = [
        f"{prior['name']} ({prior['parameters']:,} parameters) on {record['device']}, "
        f"{count(fit['iterations'], 'iteration')}{parts} in {duration(fit['seconds'])}",
        f"stopping rule {fit['stopped_by']}; {fit['rule_reason']}",
    ]
    if (error := fit["validation"]) is not None:  # relative to that of a guess without the network
        below = f"{100 * (1 - error):.2g} % ({-10 * log10(max(error, 1e-10)):.2g} dB) below that of a guess without it"
        helped = error <= 1 - _NO_EFFECT
        lines.append(
            f"by validation, the network's error is {below}" if helped else "no gain from the network by validation"
        )
    return lines


def _gaps(record: Mapping[str, Any]) -> str:
    gaps = record["degradation"]
    channels = f" over {record['channels']} channels" if record["channels"] > 1 else ""
    longest = f", the longest {duration(gaps['longest_s'])}" if gaps["count"] > 1 else ""
    missing = duration(gaps["missing"] / record["sample_rate"])
    return f"{count(gaps['count'], 'gap')}, {missing} missing{channels}{longest}"


def _clipping(record: Mapping[str, Any]) -> str:
    clipping = record["degradation"]
    levels = [abs(level) for level in (*clipping["low"], *clipping["high"]) if level is not None]
    ends = dict.fromkeys(f"{end:.3g}" for end in (min(levels), max(levels)))
    return f"{100 * clipping['clipped']:.3g} % of the samples clipped, at {' to '.join(ends)}"


def _quantization(record: Mapping[str, Any]) -> str:
    step = record["degradation"]["step"]
    return f"{round(2 / step)} levels, {step:.3g} apart"


# The degradation of a record in words, by its kind; a new one is one line.
_DEGRADATIONS = {"gaps": _gaps, "clipping": _clipping, "quantization": _quantization}


def _consistency(record: Mapping[str, Any]) -> str:
    """How far the estimate and the output, or the sum of the sources, are from what is known of the input."""
    consistency = record["consistency"]
    if "sources" in record:
        off = (
            f"the sum of the sources is up to {consistency['residual']:.3g} of full scale off the mixture, and left so"
        )
        return "the sources sum to the mixture" if consistency["enforced"] else off
    if consistency["inconsistent_before"] is None:
        return "nothing was changed"
    if record["degradation"]["kind"] == "gaps" and consistency["enforced"]:
        return "known samples are as they were"
    off = f"{100 * consistency['inconsistent_before']:.3g} % of the estimate's samples were off what is known"
    return f"{off}, and are set right" if consistency["enforced"] else f"{off}, and were left so"
