"""The scripts that measure GPUs run here, too, where there is none: at toy size, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.signals import RATE, tone

ROOT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")


def run(folder: Path, script: str, *arguments: object) -> None:
    """Run a script at toy size, with this interpreter."""
    (folder / "python").symlink_to(sys.executable)
    (folder / "dap").write_text('#!/bin/sh\nexec python -m dapcli "$@"\n')
    (folder / "dap").chmod(0o755)
    # A link to an interpreter does not know its environment, which Python finds by this.
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    search = os.pathsep.join([str(folder), os.environ["PATH"]])
    environment = {**os.environ, "TOY": "1", "PYTHONPATH": path, "PATH": search}
    command = ["bash", str(ROOT / "benchmarks" / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_table_of_the_gpu_script_is_written(tmp_path: Path) -> None:
    run(tmp_path, "gpu.sh", tmp_path / "tables")
    tables = [each.read_text() for each in (tmp_path / "tables").glob("*.md")]
    assert len(tables) == 8
    assert all(table.strip() for table in tables)


def test_the_papers_tables_have_their_priors_and_go_on_where_they_were(tmp_path: Path) -> None:
    for kind, pitch in (("digits", 200), ("piano", 400), ("drums", 700), ("noise", 50)):
        (tmp_path / "clips" / kind).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / kind / "clip.wav", tone(pitch, 1.0)[0], RATE)
    skipped = [f"--limit={name}=0" for name in ("table1", "table2", "harmonic", "quality", "environment", "generate")]
    small = ("--clips", "1", "--hop", "0.03", "--kinds", "digits", "piano+drums")
    arguments = (tmp_path / "out", tmp_path / "clips", *small, *skipped)
    run(tmp_path, "paper_tables.sh", *arguments)
    tables = (tmp_path / "out" / "tables.md").read_text()
    for name in ("conv", "dilated", "exp", "exp-dense"):
        assert tables.count(f"\n| {name} |") == 2
    units = {path: path.stat().st_mtime for path in (tmp_path / "out" / "stages").glob("*/units/*/*.json")}
    (tmp_path / "python").unlink()
    run(tmp_path, "paper_tables.sh", *arguments)
    assert (tmp_path / "out" / "tables.md").read_text() == tables
    assert {path: path.stat().st_mtime for path in units} == units
