"""The shape of the code: what may import what, and what stays cheap to start."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dapcli

ROOT = Path(dapcli.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
#: From the bottom up. A room is a module or a package; it may import those before it, and itself.
ROOMS = [
    "errors",
    "settings",
    "source_kinds",
    "files",
    "sources",
    "segments",
    "spectral",
    "postfilter",
    "audio",
    "gaps",
    "prediction",
    "sparsity",
    "kinds",
    "degradation",
    "noise",
    "metrics",
    "priors",
    "observations",
    "fitting",
    "engine",
    "store",
    "task",
    "result",
    "restore",
    "separation",
    "baselines",
    "speed",
    "evaluation",
    "report",
    "cli",
]
HEAVY = {"librosa", "mir_eval", "numpy", "scipy", "soundfile", "torch", "torchaudio"}
ENGINE = ("fitting", "observations", "priors")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def modules_in(*rooms: str) -> list[Path]:
    return [path for path in MODULES if room_of(path) in rooms]


def name_of(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else ""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(path) in ROOMS], ids=name_of)
def test_imports_go_downwards_only(path: Path) -> None:
    room = room_of(path)
    allowed = ROOMS[: ROOMS.index(room) + 1]
    upwards = []
    for line, name in imports(path):
        package, _, rest = name.partition(".")
        # The package itself knows its version; the names that it lends to users come from rooms further up.
        if package == "dapcli" and rest not in ("", "__version__") and rest.split(".")[0] not in allowed:
            upwards.append(f"{path.name}:{line}: {name}")
    assert not upwards


def test_modules_of_a_room_do_not_import_in_circles() -> None:
    def dotted(path: Path) -> str:
        return ".".join(("dapcli", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")

    known = {dotted(path): path for path in MODULES}
    below = {
        module: {
            target
            for _, name in imports(path)
            for target in (name, name.rpartition(".")[0])
            if target in known and target not in (module, "dapcli")
        }
        for module, path in known.items()
        if module != "dapcli"
    }

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        # A package that imports its modules is above them, although they name it when they import each other.
        for target in below[module]:
            if not module.startswith(f"{target}."):
                visit(target, (*way, module))

    for module in below:
        visit(module, ())


@pytest.mark.parametrize("path", modules_in(*ENGINE), ids=name_of)
def test_the_engine_neither_prints_nor_touches_files(path: Path) -> None:
    outside = {"io", "logging", "os", "pathlib", "rich", "shutil", "soundfile", "sys", "tempfile", "typer"}
    assert not {name for _, name in imports(path) if name.split(".")[0] in outside}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    attributes = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert not names & {"print", "open", "input"}
    assert not attributes & {"open", "read_text", "read_bytes", "write_text", "write_bytes", "save", "load"}


@pytest.mark.parametrize("path", modules_in("cli"), ids=name_of)
def test_the_command_line_contains_no_signal_processing(path: Path) -> None:
    assert not {name for _, name in imports(path) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("path", modules_in("errors", "settings", "source_kinds", "files"), ids=name_of)
def test_the_lowest_rooms_import_nothing_heavy(path: Path) -> None:
    assert not {name for _, name in imports(path) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["denoise", "--help"],
        ["inpaint", "--help"],
        ["separate", "--help"],
        ["evaluate", "--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    out = run(f"""
import sys
from dapcli.cli import main
sys.argv = ["dap", *{arguments!r}]
try:
    main()
except SystemExit as exit_:
    print("code", exit_.code)
print("loaded", sorted({HEAVY!r} & set(sys.modules)))
""")
    assert out.endswith("code 0\nloaded []\n")
    assert len(out.splitlines()) > 2


def test_importing_the_package_loads_nothing_heavy_until_a_name_is_used() -> None:
    out = run(f"""
import sys
import dapcli
print(sorted({HEAVY!r} & set(sys.modules)))
dapcli.Settings
print(sorted({HEAVY!r} & set(sys.modules)))
dapcli.read_audio
print("torch" in sys.modules)
dapcli.denoise
print("torch" in sys.modules)
""")
    assert out == "[]\n[]\nFalse\nTrue\n"


def test_every_public_name_of_the_package_is_there() -> None:
    for name in dapcli.__all__:
        assert getattr(dapcli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dapcli.nothing  # noqa: B018
