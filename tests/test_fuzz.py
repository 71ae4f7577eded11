"""Mangled files of every container: read or refused on purpose, in one line. More of them: benchmarks/fuzz.py."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import example, read_or_refuse, small_files
from tests.command_line import Dap, assert_refused, tree

FILES = small_files()
SAME = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.integers(0, 2**32)


@given(numbers, st.booleans())
@settings(SAME, max_examples=250)
def test_mangled_files_are_read_or_refused_in_one_line(tmp_path: Path, number: int, accept_truncated: bool) -> None:
    path = tmp_path / "mangled"
    path.write_bytes(example(FILES, 0, number)[1])
    read_or_refuse(path, accept_truncated=accept_truncated)


@given(numbers)
@settings(SAME, max_examples=12)
def test_commands_on_mangled_files_end_as_they_should_and_leave_nothing(dap: Dap, folder: Path, number: int) -> None:
    (folder / "mangled").write_bytes(example(FILES, 1, number)[1])
    before = tree(folder)
    run = dap("inpaint", "mangled", "out.wav", "--detect", "--dry-run")
    if run.code:
        assert_refused(run, 3)
    assert tree(folder) == before
