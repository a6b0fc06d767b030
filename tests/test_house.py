"""The house law: nine floors of packages, faces, no circle, small rooms, a test beside every room.

A package imports only packages on lower floors, and of them only what their `__init__` names (their face). Within a
package files import each other, without a circle. Imports count wherever they stand: at the top of a file, in a
function, under `TYPE_CHECKING`.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    {"base"},
    {"settings", "arch", "cluster"},
    {"space", "data"},
    {"runs", "model"},
    {"latency", "training", "report"},
    {"evaluation", "initial", "bundle"},
    {"study"},
    {"jobs"},
    {"cli", "api", "dense"},
)
"""Packages from low to high; those of one floor do not know each other."""

MOST_FILES = 12  # a folder
MOST_LINES = 400  # a file
SMALLEST_TESTED = 60  # lines: a file as long as this has a test file of its own
NO_TORCH = ("base", "settings", "arch", "cluster", "space", "data", "runs", "report", "cli", "api")
"""Packages that can be imported without what is slow to import: looking at results is quick."""
HEAVY = ("torch", "timm", "ray", "optuna", "pandas", "matplotlib")
AT_HOME = {
    "optuna": ("study", "api.search"),
    "ray": ("cluster", "study", "training.distributed"),
    "pandas": ("runs.directory", "api.tables", "api.run"),
    "matplotlib": ("report.figures", "api.run"),
    "typer": ("cli",),
}
"""Engines, and the only places that import them."""


class Import(NamedTuple):
    """An import: the module or `module.name` that is meant, where, and whether it is a module."""

    name: str
    line: int
    is_module: bool = False


def file_floor(module: str) -> int | None:
    """Floor of a module by its dotted name within `nas`."""
    package = module.partition(".")[0]
    return next((i for i, packages in enumerate(FLOORS) if package in packages), None)


def files(root: Path) -> dict[str, Path]:
    """Every Python file of `nas` by its dotted name within it; that of a package is its folder's."""
    found = {}
    for path in sorted((root / "nas").rglob("*.py")):
        parts = path.relative_to(root / "nas").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands, as `module` or `module.name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            yield from (Import(f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def own_imports(path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """The files of `nas` that a file imports."""
    for name, line, _ in imports(path):
        top, _, inside = name.partition(".")
        if top == "nas":
            is_module = inside in known
            yield Import(inside if is_module else inside.rpartition(".")[0], line, is_module)


def breaches(root: Path) -> list[str]:
    """Everything in the checkout at `root` that the law forbids, in words."""
    known = files(root)
    found = []
    for module, path in known.items():
        if module in ("", "__main__"):
            continue  # `nas` itself is a lazy front over the packages, and `python -m nas` is their top floor
        package, floor = module.partition(".")[0], file_floor(module)
        if floor is None:
            found.append(f"nas.{module}: its package has no floor")
            continue
        for target, line, is_module in own_imports(path, known):
            other, there = target.partition(".")[0], file_floor(target)
            where = f"nas/{path.relative_to(root / 'nas')}:{line}"
            if other == package:
                if target == package and path.name != "__init__.py":
                    found.append(f"{where} imports its own face")
            elif target and (there is None or there >= floor):
                found.append(f"{where} imports nas.{target}, which is not on a lower floor")
            elif target != other and (not is_module or target.count(".") > 1):
                found.append(f"{where} imports nas.{target} past the face of nas.{other}")
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            found.append(f"nas.{module} has {lines} lines, more than {MOST_LINES}")
        *folders, name = module.split(".")
        test = root.joinpath("tests", *folders, f"test_{name}.py")
        if lines >= SMALLEST_TESTED and path.name != "__init__.py" and not test.exists():
            found.append(f"nas.{module} has {lines} lines and no {test.relative_to(root)}")
    found += circles(known)
    for folder in [root / "nas", *(p for p in (root / "nas").rglob("*") if p.is_dir())]:
        rooms = [p for p in folder.iterdir() if p.is_file() and p.suffix != ".pyc" and p.name != "__init__.py"]
        if len(rooms) > MOST_FILES:
            found.append(f"{folder.relative_to(root)} has {len(rooms)} files, more than {MOST_FILES}")
    return found


def circles(known: dict[str, Path]) -> list[str]:
    """A circle among the files, if there is one; the face of a package is a file too."""
    graph = {
        module: {found.name for found in own_imports(path, known) if found.name != module}
        for module, path in known.items()
        if module
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"files import each other in a circle: {' -> '.join(error.args[1])}"]
    return []


def test_the_house_keeps_its_law():
    assert breaches(ROOT) == []


BROKEN = {
    "an import upwards": ("nas/arch/cost.py", "import nas.study\n", "not on a lower floor"),
    "one within a function": ("nas/arch/cost.py", "def f():\n    from nas.runs import Trial\n", "not on a lower floor"),
    "one for types only": ("nas/arch/cost.py", "if TYPE_CHECKING:\n    from nas.cli import main\n", "not on a lower"),
    "a neighbour's floor": ("nas/settings/target.py", "from nas.arch import Backbone\n", "not on a lower floor"),
    "past a face": ("nas/study/loop.py", "from nas.runs.trial import Trial\n", "past the face of nas.runs"),
    "its own face": ("nas/space/walk.py", "from nas.space import SearchSpace\n", "its own face"),
    "a long file": ("nas/base/words.py", "#\n" * 400, "lines, more than 400"),
    "a file without a test": ("nas/base/new.py", "#\n" * 60, "and no tests/base/test_new.py"),
    "a package without a floor": ("nas/attic/old.py", "", "has no floor"),
}
"""File, text added at its end, part of the breach that is found."""


def copy_of_the_house(folder: Path) -> Path:
    """The package, and tests of the right names."""
    shutil.copytree(ROOT / "nas", folder / "nas", ignore=shutil.ignore_patterns("__pycache__"))
    for test in ROOT.glob("tests/**/test_*.py"):
        copied = folder / test.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.touch()
    return folder


@pytest.fixture(scope="module")
def found_in_ruins(tmp_path_factory):
    """What is found where everything is broken at once."""
    folder = copy_of_the_house(tmp_path_factory.mktemp("ruins"))
    for file, text, _ in BROKEN.values():
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as opened:
            opened.write(text)
    for i in range(MOST_FILES):
        (folder / "nas" / "base" / f"room_{i}.py").touch()
    return breaches(folder)


@pytest.mark.parametrize("breach", BROKEN)
def test_the_law_notices(found_in_ruins, breach):
    file, _, words = BROKEN[breach]
    names = (file, "nas." + file.removeprefix("nas/").removesuffix(".py").replace("/", "."))
    assert any(words in found and any(name in found for name in names) for found in found_in_ruins)


def test_the_law_notices_a_crowded_folder(found_in_ruins):
    assert any("nas/base has" in found for found in found_in_ruins)


@pytest.mark.parametrize("where", ["{}", "def f():\n    {}", "if TYPE_CHECKING:\n    {}"])
def test_the_law_notices_a_circle(tmp_path, where):
    folder = copy_of_the_house(tmp_path)
    with (folder / "nas" / "base" / "errors.py").open("a") as opened:
        opened.write(where.format("from nas.base.files import sync_folder\n"))
    (circle,) = circles(files(folder))
    assert "base.errors" in circle


@pytest.mark.parametrize("library", AT_HOME)
def test_library_is_imported_only_at_home(library):
    users = {
        module
        for module, path in files(ROOT).items()
        for name, *_ in imports(path)
        if name.partition(".")[0] == library
    }
    homes = AT_HOME[library]
    assert {m for m in users if not any(m == home or m.startswith(f"{home}.") for home in homes)} == set()


def test_working_waits_for_no_library_that_it_may_not_need():
    code = "import sys, nas.jobs; print(*{'kornia', 'scipy.stats', 'sklearn'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == "\n"


def test_looking_imports_nothing_heavy():
    code = (
        "import importlib, sys\n"
        f"for name in ('nas', *('nas.' + package for package in {NO_TORCH!r})):\n"
        "    importlib.import_module(name)\n"
        f"    print(name, *[heavy for heavy in {HEAVY!r} if heavy in sys.modules])\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.split("\n")[:-1] == ["nas", *(f"nas.{package}" for package in NO_TORCH)]
