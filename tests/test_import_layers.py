"""Imports point one way, engines stay where they belong, and looking at results needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nas

ROOT = Path(nas.__file__).parent

# From low to high: a module may import what is lower and what is in its own set. A package is its modules.
LAYERS: tuple[tuple[set[str], ...], ...] = (
    ({"errors"}, {"chunks"}),
    ({"metrics"},),
    ({"architecture"}, {"document", "yaml_file", "target", "tune_config", "config"}),
    ({"trial"},),
    (
        {
            "cost",
            "designs",
            "memory",
            "space_bounds",
            "space_largest",
            "space_paths",
            "space_reasons",
            "space_walk",
            "space_sampling",
            "space",
            "space_file",
            "run_directory",
            "front_point",
            "pareto",
            "supernet_runs",
            "sub_spaces",
        },
        {"ray_connection"},
    ),
    ({"model"},),
    ({"training"},),
    ({"evaluation"},),
    (
        {"search"},
        {
            "report",
            "figure",
            "terminal_plot",
            "html_report",
            "front_table",
            "measured",
            "report_data",
            "report_curve",
            "compare",
            "check",
            "trust",
            "trust_figure",
            "retrain",
        },
        {"bundle", "model_card", "export"},
        {"progress"},
        {"doctor"},
    ),
    ({"callbacks", "session", "front_latency", "pipeline"},),
    (
        {"redundancy"},
        {"device_measure", "latency_runs", "latency_exchange"},
        {"supernet_trial", "supernet_union"},
        {"stand_alone", "trained_alone", "trust_run", "retrain_run", "export_pick"},
        {"rehearsal", "forecast"},
    ),
    ({"cli_options", "cli_latency", "cli_output", "cli_look", "cli_trust", "cli_retrain", "cli"},),
)
AT_HOME = {
    "optuna": ("search",),
    "ray": ("search", "ray_connection", "training.distributed"),
    "pandas": ("report", "run_directory"),
    "matplotlib": ("report", "figure", "trust_figure"),
    "typer": ("cli", "cli_latency", "cli_look", "cli_trust", "cli_retrain", "cli_options"),
}
LOOKING = ("nas", "nas.space", "nas.cost", "nas.pareto", "nas.run_directory", "nas.report", "nas.cli")
HEAVY = ("torch", "timm", "ray", "optuna", "pandas", "matplotlib")


def modules() -> dict[str, Path]:
    """Dotted name within `nas` of every module with code; the package itself is only a lazy front."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":
            found[".".join(parts)] = path
    return found


def imports(path: Path, *, everywhere: bool) -> Iterator[tuple[str, int]]:
    """(module or module.name, line) of every import of a file, or of those that run when it is imported."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if everywhere or not deferred:
            pending += ast.iter_child_nodes(node)


def imported_modules(path: Path, *, everywhere: bool) -> Iterator[tuple[str, int]]:
    """Modules of `nas` that a file imports, by their dotted name within it."""
    known = modules()
    for name, line in imports(path, everywhere=everywhere):
        package, _, rest = name.partition(".")
        if package == "nas" and rest:
            inside = rest if rest in known else rest.rpartition(".")[0]
            if inside in known:
                yield inside, line


def place(module: str) -> tuple[int, int] | None:
    """Layer of a module, and its set within the layer."""
    top = module.partition(".")[0]
    return next(
        ((i, j) for i, layer in enumerate(LAYERS) for j, names in enumerate(layer) if top in names), None
    )


def test_every_module_has_a_layer():
    assert [module for module in modules() if place(module) is None] == []


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module):
    here = place(module)
    assert here is not None
    breaches = []
    for target, line in imported_modules(modules()[module], everywhere=True):
        there = place(target)
        assert there is not None
        if there != here and there[0] >= here[0]:
            breaches.append(f"line {line}: nas.{module} imports nas.{target}, which is not below it")
    assert breaches == []


def test_no_module_needs_itself():
    graph = {
        name: {t for t, _ in imported_modules(path, everywhere=False)} for name, path in modules().items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


@pytest.mark.parametrize("library", AT_HOME)
def test_library_is_imported_only_at_home(library):
    users = {
        module
        for module, path in modules().items()
        for name, _ in imports(path, everywhere=True)
        if name.partition(".")[0] == library
    }
    strangers = {
        module
        for module in users
        if not any(module == home or module.startswith(f"{home}.") for home in AT_HOME[library])
    }
    assert strangers == set()


def test_looking_imports_nothing_heavy():
    code = (
        "import importlib, sys\n"
        f"for name in {LOOKING!r}:\n"
        "    importlib.import_module(name)\n"
        f"    print(name, *[heavy for heavy in {HEAVY!r} if heavy in sys.modules])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False
    )
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.split("\n")[:-1] == [*LOOKING]
