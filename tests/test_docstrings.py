"""One line of a docstring says what a public function raises; of longer ones, ruff reads the section `Raises`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANDED_ON = {"Exit"}
"""Typer's way to end a command with an exit code, which is no error."""


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of the exceptions that stand in a function's own body, as `raise Name(...)`."""
    names, left = set(), list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc).rpartition(".")[2]
            names |= {name} if name[0].isupper() else set()
        left += ast.iter_child_nodes(node)
    return names


def silent(path: Path) -> list[str]:
    """Public functions whose docstring is one line that does not name what they raise."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if (docstring := ast.get_docstring(node)) and "\n" not in docstring
        for name in raised(node) - HANDED_ON
        if name not in docstring
    ]


def test_what_a_function_raises_is_said_in_one_line_too():
    assert [found for path in sorted((ROOT / "nas").rglob("*.py")) for found in silent(path)] == []
