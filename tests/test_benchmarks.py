"""The script that measures GPUs runs here, too, where there is none: at toy size, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_every_table_of_the_gpu_script_is_written(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    (tmp_path / "dap").write_text('#!/bin/sh\nexec python -m dapcli "$@"\n')
    (tmp_path / "dap").chmod(0o755)
    # A link to an interpreter does not know its environment, which Python finds by this.
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    search = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "TOY": "1", "PYTHONPATH": path, "PATH": search}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path / "tables")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
    tables = [each.read_text() for each in (tmp_path / "tables").glob("*.md")]
    assert len(tables) == 8
    assert all(table.strip() for table in tables)
