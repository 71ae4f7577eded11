"""Ray: the same results from the machines of a cluster, and what becomes of lost processes, packages and clusters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import gettempdir

import pytest

from dapcli.errors import DeviceError
from dapcli.evaluation import run
from dapcli.pipeline import cluster, workers
from dapcli.pipeline.cluster import join_cluster
from dapcli.pipeline.workers import Workers
from tests.command_line import MAIN, TINY, Dap, assert_refused, ok, process, tree
from tests.test_workers import die, double, refuse

ray = pytest.importorskip("ray", reason="pip install 'dapcli[ray]'")
TINIER = ("--finetune-iterations", "1", *TINY)


@pytest.fixture(scope="module")
def started() -> Iterator[Workers]:
    """A cluster of two processes on this machine."""
    with join_cluster("local", 2, lambda _: 0.0) as joined:
        yield joined


@pytest.fixture
def address(started: Workers) -> str:
    return str(ray.get_runtime_context().gcs_address)


def processes(*of: str) -> list[int]:
    found = subprocess.run(["pgrep", *of], capture_output=True, text=True, check=True)
    return [int(each) for each in found.stdout.split()]


def test_results_come_back_from_other_processes_and_what_a_call_raises_is_raised(started: Workers) -> None:
    assert dict(started.map(double, range(20))) == {item: 2 * item for item in range(20)}
    with pytest.raises(ValueError, match="not 1"):
        list(started.map(refuse, [1]))


def test_the_items_of_a_process_that_dies_are_done_again(
    started: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_RETRIES", 1)
    items = [tmp_path / name for name in ("a", "always", "once", "b")]
    results = {item.name: result for item, result in started.map(die, items)}
    assert isinstance(results.pop("always"), DeviceError)
    assert results == {name: name for name in ("a", "b", "once")}


def test_a_machine_without_the_package_is_named_as_the_cause(
    started: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def nothing(item): return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    ((_, error),) = started.map(only_here.nothing, [1])
    assert isinstance(error, DeviceError)
    assert "No module named 'only_here'" in str(error)


def test_another_version_and_a_folder_that_is_not_shared_are_refused(
    started: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    submitted = started.submit(double, 1)
    assert submitted.result() == 2
    monkeypatch.setattr("dapcli.__version__", "99")
    assert "not 99" in str(started.submit(double, 1).result())
    monkeypatch.undo()
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "lost")
    assert f"{tmp_path / 'lost'} cannot be used" in str(started.submit(double, 1).result())


def test_a_cluster_that_does_not_answer_any_more_ends_the_run(
    started: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(address: str) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(cluster, "_knock", gone)
    monkeypatch.setattr(cluster, "_LOST", 0.0)
    monkeypatch.setattr(workers, "_SILENCE", 0.01)
    with pytest.raises(DeviceError, match="does not answer any more"):
        list(started.map(time.sleep, [0.5]))


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "cannot be reached .*ray start"), ("nonsense", "cannot be reached .*nonsense")],
)
def test_a_cluster_that_is_not_there_is_refused(address: str, reason: str, dap: Dap, folder: Path) -> None:
    before = tree(folder)
    for call in (("batch", "denoise", "brief.wav"), ("evaluate", "denoise", "brief.wav", "--duration", "0.15")):
        run = dap(*call, "--output-dir", "out", "--cluster", address)
        assert_refused(run, 4, reason)
        shutil.rmtree(folder / "out", ignore_errors=True)
        assert tree(folder) == before


def test_without_ray_one_line_says_what_to_install(dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_refused(
        dap("batch", "denoise", "brief.wav", "--output-dir", "out", "--cluster", "auto"), 2, r"dapcli\[ray\]"
    )


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_batch_loses_a_process_and_has_the_bits_of_one_machine(
    address: str, dap: Dap, clips: Path, folder: Path
) -> None:
    (folder / "in").mkdir()
    for number in range(40):
        shutil.copy(folder / f"{('brief', 'noisy')[number % 2]}.wav", folder / "in" / f"{number}.wav")
    records = folder / "out"
    with process(MAIN, "batch", "denoise", "in", "--output-dir", "out", "--cluster", address, *TINIER) as running:
        deadline = time.monotonic() + 120
        while len(list(records.glob("*.wav.json"))) < 5 and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        (node,) = processes("-f", f"^[^ ]*/raylet .*{address}")
        os.kill(processes("-P", str(node), "-f", "^ray::_call")[0], signal.SIGKILL)
        assert running.wait() == 0, running.communicate()
    files = {f"{number}.wav{end}" for number in range(40) for end in ("", ".json")}
    assert set(tree(folder / "out")) == files | {"batch.json"}
    lines = json.loads((records / "batch.json").read_text())["files"]
    assert [line["status"] for line in lines] == ["done"] * 40
    for name in ("brief", "noisy"):
        ok(dap("denoise", f"{name}.wav", f"single_{name}.wav", *TINIER))
    for number in range(40):
        single = folder / f"single_{('brief', 'noisy')[number % 2]}.wav"
        assert (records / f"{number}.wav").read_bytes() == single.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_batch_on_a_cluster_ends_by_a_signal_as_any_run_does(address: str, folder: Path) -> None:
    call = ("batch", "denoise", "noisy.wav", "--output-dir", "out", "--cluster", address, "--iterations", "9999")
    with process(MAIN, *call) as running:
        deadline = time.monotonic() + 60
        # Those of the folder and of the recording: a process of the cluster has begun.
        while len(list((folder / "out").glob(".dap-*.lock"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        error = running.communicate()[1]
    assert running.returncode == 128 + signal.SIGTERM
    assert error.count("\n") == 1
    assert "repeat the command to go on" in error
    assert not tree(folder / "out")


@pytest.fixture
def unshared(started: Workers, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that do not see the folder: they look for another one, and for a claim that is not there."""
    monkeypatch.setattr("dapcli.pipeline.cluster.join_cluster", lambda *_: nullcontext(started))  # joined once
    monkeypatch.setattr(Path, "cwd", lambda: folder / "lost")
    monkeypatch.setattr("dapcli.audio.files.claim", lambda _: nullcontext())


def told(record: Path) -> object:
    """A record without what differs from run to run."""
    return json.loads(
        record.read_text(), object_pairs_hook=lambda pairs: [each for each in pairs if "second" not in each[0]]
    )


@pytest.mark.usefixtures("unshared")
@pytest.mark.parametrize("root", ["", "absolute"])
def test_files_that_a_machine_does_not_see_are_sent_and_have_the_same_bits_and_records(
    root: str, dap: Dap, recordings: Path
) -> None:
    base = recordings if root else Path()
    options = ("--noise-profile", str(base / "brief.wav"), "--report", str(base / "one/noisy.wav.html"))
    (recordings / "one").mkdir()
    ok(dap("denoise", str(base / "noisy.wav"), str(base / "one/noisy.wav"), *options, *TINIER))
    (recordings / "one").rename(recordings / "before")
    batch = ("batch", "denoise", str(base / "noisy.wav"), "--output-dir", str(base / "one"), *options[:2], "--report")
    ok(dap(*batch, "--cluster", "auto", *TINIER))
    before, after = recordings / "before", recordings / "one"
    assert (after / "noisy.wav").read_bytes() == (before / "noisy.wav").read_bytes()
    assert told(after / "noisy.wav.json") == told(before / "noisy.wav.json")
    assert gettempdir() + "/dap-" not in (after / "noisy.wav.html").read_text()
    assert set(tree(after)) == {*tree(before), "batch.json"}
    ok(dap(*batch, "--cluster", "auto", *TINIER))
    assert json.loads((after / "batch.json").read_text())["kept"] == 1


@pytest.mark.usefixtures("unshared")
def test_a_folder_of_sources_comes_back_and_files_of_others_stay(dap: Dap, recordings: Path) -> None:
    (recordings / "in").mkdir()
    (recordings / "in" / "bad.wav").write_text("no audio")
    for name in ("mix", "other"):
        shutil.copy(recordings / "mix.wav", recordings / "in" / f"{name}.wav")
    (recordings / "out" / "other").mkdir(parents=True)
    (recordings / "out" / "other" / "separation.json").write_text("mine")
    call = ("batch", "separate", "in", "--output-dir", "out", "--cluster", "auto", "--prior", "conv", *TINY)
    assert dap(*call).code == 5
    ok(dap("separate", "mix.wav", "one", "--prior", "conv", *TINY))
    for path in (recordings / "one").glob("*.wav"):
        assert (recordings / "out" / "mix" / path.name).read_bytes() == path.read_bytes()
    assert tree(recordings / "out" / "other") == {"separation.json": b"mine"}
    lines = {
        Path(line["input"]).name: line for line in json.loads((recordings / "out/batch.json").read_text())["files"]
    }
    assert "already exists" in lines["other.wav"]["error"]
    assert lines["bad.wav"]["error"].startswith("in/bad.wav")


@pytest.mark.usefixtures("unshared")
def test_large_files_that_a_machine_does_not_see_are_refused(
    dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dapcli.cli.batch._SENT", 1000)
    assert dap("batch", "denoise", "noisy.wav", "--output-dir", "out", "--cluster", "auto", *TINIER).code == 5
    (line,) = json.loads((folder / "out" / "batch.json").read_text())["files"]
    assert "lost cannot be used" in line["error"]
    assert "share that folder" in line["error"]
    assert set(tree(folder / "out")) == {"batch.json"}


def test_an_evaluation_has_the_results_of_one_machine(
    started: Workers, dap: Dap, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--prior", "conv", "--baseline", "wiener", "--duration", "0.15", "--preset", "fast", "--iterations", "2")
    call = ("evaluate", "denoise", "noisy.wav", *options, "--device", "cpu", "--no-oracle")
    ok(dap(*call, "--output-dir", "here"))
    monkeypatch.setattr(run, "join_cluster", lambda *_: nullcontext(started))  # a process joins once
    monkeypatch.setattr(run, "restore_unit", None)  # not of this process
    ok(dap(*call, "--output-dir", "there", "--cluster", "auto"))
    tables = [json.loads((folder / name / "results.json").read_text())["units"] for name in ("here", "there")]
    assert [{**unit, "seconds": 0, "fit": 0} for unit in tables[0]] == [
        {**unit, "seconds": 0, "fit": 0} for unit in tables[1]
    ]
    for name in tree(folder / "here" / "audio"):
        assert (folder / "here" / "audio" / name).read_bytes() == (folder / "there" / "audio" / name).read_bytes()
