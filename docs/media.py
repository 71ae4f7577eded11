"""Make the pictures and sounds of the site: python docs/media.py [NAME...].

It needs a clone with the extra ``docs``, and chromium. It types the commands of the guides in a folder of its own, as
a reader would, and encodes what comes out: pictures as WebP, sounds as Ogg Opus, all of them below ``docs/media``.
Names restrict it to guides, and to ``how``, the figures of "How it works".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from dapcli import TASKS, Audio, denoise
from dapcli.audio import open_audio, read_audio, resample
from dapcli.report.figures import COLOURS, spectrogram
from dapcli.signal.noise import estimate_noise
from dapcli.signal.stft import STFT

DOCS = Path(__file__).parent
MEDIA = DOCS / "media"
#: What is shown of what a guide's commands make: names of pictures and sounds by guide.
SHOWN = {
    "tape": {
        "tape-before": "damaged/tape.wav",
        "tape-after": "tape.wav",
        "tape-profile": "profile.wav",
        "tape-gentle": "gentle.wav",
        "tape-page": "tape.html",
    },
    "dropout": {"dropout-before": "damaged/dropout.wav", "dropout-after": "filled.wav"},
    "declip": {"clipped-before": "damaged/clipped.wav", "clipped-after": "declipped.wav"},
    "separate": {
        "mixture-before": "damaged/mixture.wav",
        "mixture-melody": "parts/melody.wav",
        "mixture-drums": "parts/drums.wav",
    },
    "priors": {"priors-convergence": "results/convergence_exp-dense.svg"},
}
# Read on white and on black.
_INK = "#808080"
_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "font.size": 9,
    "svg.hashsalt": "dap",
}
_OPUS_RATE = 48_000


def commands(guide: Path) -> list[str]:
    """What a guide tells its reader to type, in order: its blocks marked ``sh``."""
    return re.findall(r"^```sh\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def make(guide: str) -> None:
    """Type a guide's commands, and show what they make."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DOCS.parent / "examples", Path(folder) / "examples")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        for command in commands(DOCS / "guides" / f"{guide}.md"):
            subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, check=True)
        for name, made in SHOWN[guide].items():
            path = Path(folder) / made
            if path.suffix == ".svg":
                shutil.copy(path, MEDIA / path.with_stem(name).name)
            elif path.suffix == ".html":
                photograph(path, name)
            else:
                encode(path, name)


@rc_context(_STYLE)
def encode(path: Path, name: str) -> None:
    """A recording as a spectrogram and as a sound; all have one colour scale, from -100 to -20 dB."""
    with open_audio(path) as recording:
        picture = spectrogram(recording)
    figure = Figure(figsize=(7.2, 2.0), layout="constrained")
    axes = figure.add_subplot()
    extent = (0, picture.levels.shape[1] * picture.column_s, 0, picture.rate / 2000)
    axes.imshow(picture.levels, vmin=-100, vmax=-20, cmap="magma", origin="lower", aspect="auto", extent=extent)
    axes.set(xlabel="time (s)", ylabel="kHz")
    save(figure, name)
    audio = read_audio(path)
    samples = resample(audio.samples, audio.rate, _OPUS_RATE)
    soundfile.write(MEDIA / f"{name}.ogg", samples.T, _OPUS_RATE, format="OGG", subtype="OPUS", compression_level=0.7)


def photograph(page: Path, name: str) -> None:
    """A page as a browser shows it; needs chromium."""
    picture = page.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,900", f"--screenshot={picture}"]
    subprocess.run(["chromium", *options, page.as_uri()], check=True)
    Image.open(picture).convert("RGB").save(MEDIA / f"{name}.webp", quality=60, method=6)


def save(figure: Figure, name: str) -> None:
    """Save a figure without a ground, as WebP."""
    figure.savefig(MEDIA / f"{name}.webp", transparent=True, dpi=150, pil_kwargs={"quality": 60, "method": 6})


@rc_context(_STYLE)
def draw_how() -> None:
    """The figures of "How it works": a network learns sound before noise, and what a mask is made of."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, DOCS.parent / "examples" / "make_damaged.py", folder], check=True)
        speech, noisy = (read_audio(Path(folder) / name) for name in ("speech.wav", "tape.wav"))
    clean = Audio(speech.samples[:, 16_000:32_000], speech.rate)
    noise = np.random.default_rng(0).standard_normal(clean.samples.shape) * clean.samples.std()

    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    generate = replace(TASKS["denoise"].presets["generate"], stop="oracle", iterations=400)
    for prior, colour in (("exp-dense", COLOURS[0]), ("conv", COLOURS[1])):
        settings = replace(generate, prior=prior, post_filter="none", input_noise=0.0, ema_decay=0.0)
        degraded = clean.with_samples(clean.samples + noise)
        fit = denoise(degraded, settings, references=[clean], device="cpu").segments[0]
        axes.plot([-10 * np.log10(each.criterion) for each in fit.iterations], color=colour, label=prior)
    axes.axhline(0.0, color=_INK, ls=":", label="noisy input")
    axes.set(xlabel="iteration", ylabel="SNR of the estimate (dB)", xlim=(0, None), ylim=(-1, None))
    axes.legend(frameon=False)
    save(figure, "how-order")

    stft, samples = STFT(1022, 128), torch.from_numpy(noisy.samples).float()
    estimate = denoise(noisy, TASKS["denoise"].presets["quality"], device="cpu").audio.samples
    power = stft.forward(samples).square().sum(dim=1)[0]
    floor = estimate_noise(stft, samples, noisy.rate, "auto").power[0]
    kept = stft.forward(torch.from_numpy(estimate).float()).square().sum(dim=1)[0]
    panels = {
        "recording (dB)": (10 * torch.log10(power + 1e-9), -30, 30),
        "estimated noise (dB)": (10 * torch.log10(floor + 1e-9), -30, 30),
        "gain of the network": ((kept / power.clamp(min=1e-12)).sqrt(), 0, 1),
        "restored (dB)": (10 * torch.log10(kept + 1e-9), -30, 30),
    }
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    for axes, (title, (values, low, high)) in zip(figure.subplots(2, 2, sharex=True).flat, panels.items(), strict=True):
        extent = (0, samples.shape[1] / noisy.rate, 0, noisy.rate / 2000)
        image = axes.imshow(
            values.numpy(), vmin=low, vmax=high, cmap="magma", origin="lower", aspect="auto", extent=extent
        )
        axes.set(title=title, ylabel="kHz")
        figure.colorbar(image, pad=0.02)
    save(figure, "how-mask")


if __name__ == "__main__":
    MEDIA.mkdir(exist_ok=True)
    for each in sys.argv[1:] or ("how", *SHOWN):
        if each == "how":
            draw_how()
        else:
            make(each)
