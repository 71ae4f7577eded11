"""The shape of the code: what may import what, what stays cheap to start, and that everything public is explained."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dapcli
from dapcli.tasks import TASKS

ROOT = Path(dapcli.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
#: The first column of the table in CONTRIBUTING.md, from the top down. A room is a module or a package.
ROOMS = [
    name.removesuffix("/").removesuffix(".py")
    for row in re.findall(r"^\| (`.*?) \|", (ROOT.parent / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    for name in re.findall("`(.+?)`", row)
]
HEAVY = {"librosa", "mir_eval", "numpy", "scipy", "soundfile", "torch", "torchaudio"}
FIT = ("fit", "objectives", "priors")


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


def test_the_table_of_contributing_names_every_room_once() -> None:
    assert sorted(ROOMS) == sorted({room_of(path) for path in MODULES} - {"__init__", "__main__"})


@pytest.mark.parametrize("path", modules_in(*ROOMS), ids=name_of)
def test_imports_go_downwards_only(path: Path) -> None:
    allowed = ROOMS[ROOMS.index(room_of(path)) :]
    upwards = []
    for line, name in imports(path):
        package, _, rest = name.partition(".")
        # The package itself knows its version; the names that it lends to users come from rooms further up.
        if package == "dapcli" and rest not in ("", "__version__") and rest.split(".")[0] not in allowed:
            upwards.append(f"{path.name}:{line}: {name}")
    assert not upwards


def test_modules_do_not_import_in_circles() -> None:
    known = {
        ".".join(("dapcli", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in MODULES
    }
    below = {
        module: {
            target
            for _, name in imports(path)
            for target in (name, name.rpartition(".")[0])
            # A package that imports its modules is above them, although they name it when they import each other.
            if target in known and not f"{module}.".startswith(f"{target}.")
        }
        for module, path in known.items()
        if module != "dapcli"
    }
    TopologicalSorter(below).prepare()  # raises CycleError


@pytest.mark.parametrize("path", modules_in(*FIT), ids=name_of)
def test_a_fit_neither_prints_nor_touches_files(path: Path) -> None:
    outside = {"io", "logging", "os", "pathlib", "rich", "shutil", "soundfile", "sys", "tempfile", "typer"}
    assert not {name for _, name in imports(path) if name.split(".")[0] in outside}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    attributes = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert not names & {"print", "open", "input"}
    assert not attributes & {"open", "read_text", "read_bytes", "write_text", "write_bytes", "save", "load"}


@pytest.mark.parametrize("path", modules_in("cli", "settings", "errors"), ids=name_of)
def test_the_command_line_and_the_settings_contain_no_signal_processing(path: Path) -> None:
    assert not {name for _, name in imports(path) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [each for each in tree.body if isinstance(each, kinds) and each.name[0] != "_"]
    members = [each for node in public if isinstance(node, ast.ClassDef) for each in node.body]
    public += [each for each in members if isinstance(each, kinds) and each.name[0] != "_"]
    assert ast.get_docstring(tree)
    assert not [each.name for each in public if not ast.get_docstring(each)]


COMMANDS = [["--version"], ["--help"], *([*batch, task, "--help"] for task in TASKS for batch in ((), ("batch",)))]
EVALUATE = [["evaluate", "--help"]]


# The options of evaluate are made of its protocols, which take numpy.
@pytest.mark.parametrize(("commands", "heavy"), [(COMMANDS, HEAVY), (EVALUATE, HEAVY - {"numpy", "soundfile"})])
def test_help_does_not_wait_for_torch(commands: list[list[str]], heavy: set[str]) -> None:
    out = run(f"""
import sys
from dapcli.cli import main
for arguments in {commands!r}:
    sys.argv = ["dap", *arguments]
    try:
        main()
    except SystemExit as exit_:
        print("code", exit_.code)
print("loaded", sorted({heavy!r} & set(sys.modules)))
""")
    assert out.count("code 0\n") == len(commands)
    assert out.endswith("loaded []\n")


def test_importing_the_package_loads_nothing_heavy_until_a_name_is_used() -> None:
    out = run(f"""
import sys
import dapcli, dapcli.settings, dapcli.tasks, dapcli.tasks.options
dapcli.Settings, dapcli.TASKS
print(sorted({HEAVY!r} & set(sys.modules)))
dapcli.read_audio
print("torch" in sys.modules)
""")
    assert out == "[]\nFalse\n"


def test_a_package_that_is_missing_is_named_in_one_line_with_what_to_do() -> None:
    out = run("""
import sys
sys.modules["torch"] = None
import dapcli
try:
    dapcli.denoise
except ImportError as error:
    print(error)
from dapcli.cli import main
sys.argv, sys.stderr = ["dap", "priors"], sys.stdout
try:
    main()
except SystemExit as exit_:
    print(exit_.code)
""")
    in_python, on_the_command_line, code = out.splitlines()
    for line in (in_python, on_the_command_line):
        assert re.search("torch is not installed.*pip install", line)
    assert code == "1"


def test_every_public_name_of_the_package_is_there() -> None:
    for name in dapcli.__all__:
        assert getattr(dapcli, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dapcli.nothing  # noqa: B018
