"""Random mutants of the core, and whether a test notices.

    python benchmarks/mutants.py [--count 40] [--seed 0] [--packages space arch model search training]

A mutant is one small change of one file: a condition negated, a comparison or an operation replaced, a number one
larger, a `return` without its value, a filter left out. It is made in a copy of the checkout, where the test file of
its module, then the tests of its package, then the whole fast suite run until a test fails. What no test fails on is a
survivor; it is written down with its change, for a person to judge: a change that means nothing (another way to the
same result) is no fault of the tests. Finished mutants are not run again: the table is the memory.
"""

import argparse
import ast
import copy
import csv
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tables import REFERENCE

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("seed", "number", "file", "line", "before", "after", "killed_by", "seconds")
PER_STAGE_S = 900
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATIONS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div}


def places(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that `mutate` can change; messages, docstrings and annotations are left alone."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.AnnAssign | ast.arguments | ast.ImportFrom):
            skipped |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.FunctionDef) and node.returns:
            skipped |= {id(inner) for inner in ast.walk(node.returns)}
    yield from (node for node in ast.walk(tree) if id(node) not in skipped and can_change(node))


def can_change(node: ast.AST) -> bool:
    """Whether `mutate` has a change for a node."""
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            return "TYPE_CHECKING" not in ast.unparse(node.test)
        case ast.Compare():
            return type(node.ops[0]) in COMPARISONS
        case ast.BinOp():
            is_text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
            return type(node.op) in OPERATIONS and not is_text
        case ast.Constant():
            return type(node.value) is int
        case ast.Return():
            return node.value is not None
        case ast.comprehension():
            return bool(node.ifs)
    return False


def mutate(node: ast.AST) -> None:
    """Change one node in place."""
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Compare():
            node.ops[0] = COMPARISONS[type(node.ops[0])]()
        case ast.BinOp():
            node.op = OPERATIONS[type(node.op)]()
        case ast.Constant():
            node.value += 1
        case ast.Return():
            node.value = None
        case ast.comprehension():
            node.ifs = []


def mutant(path: Path, rng: random.Random) -> tuple[str, int, str, str] | None:
    """(new text, line, line before, line after) of a file with one random change; None where there is nothing."""
    text = path.read_text()
    tree = ast.parse(text)
    plain = ast.unparse(tree).splitlines()
    count = len(list(places(tree)))
    if not count:
        return None
    changed = copy.deepcopy(tree)
    node = list(places(changed))[rng.randrange(count)]
    line = getattr(node, "lineno", getattr(getattr(node, "target", None), "lineno", 0))
    mutate(node)
    new = ast.unparse(ast.fix_missing_locations(changed))
    delta = [row for row in difflib.ndiff(plain, new.splitlines()) if row[:2] in ("- ", "+ ")]
    before = " ".join(row[2:].strip() for row in delta if row[0] == "-")
    after = " ".join(row[2:].strip() for row in delta if row[0] == "+")
    return new, line, before, after


def failing_test(copy_of: Path, module: Path) -> str:
    """The first test that fails on the mutant, `time out`, or nothing."""
    package = module.parts[0]
    own = Path("tests", *module.parent.parts, f"test_{module.stem}.py")
    stages = [[str(own)]] if (copy_of / own).exists() else []
    stages += [[f"tests/{package}"], ["tests"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy_of), "PYTHONDONTWRITEBYTECODE": "1"}
    for stage in stages:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *stage]
        if stage == ["tests"]:
            command += ["-n", "2", "--deselect", "tests/test_house.py", "--ignore", "tests/docs"]
        else:
            command += ["-n", "0"]
        try:
            done = subprocess.run(
                command, cwd=copy_of, env=environment, capture_output=True, text=True, timeout=PER_STAGE_S
            )
        except subprocess.TimeoutExpired:
            return "time out"
        if done.returncode not in (0, 5):
            named = [row for row in done.stdout.splitlines() if row.startswith(("FAILED", "ERROR"))]
            return named[0].split(" - ")[0].partition(" ")[2] if named else f"exit code {done.returncode}"
    return ""


def main() -> None:
    """Run the mutants that are missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="+", default=["space", "arch", "model", "study", "training"])
    asked = parser.parse_args()
    table = REFERENCE / "mutants.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    known = {(int(row["seed"]), int(row["number"])) for row in rows}
    modules = [
        path.relative_to(ROOT / "nas")
        for package in asked.packages
        for path in sorted((ROOT / "nas" / package).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    weights = [len((ROOT / "nas" / module).read_text().splitlines()) for module in modules]
    for number in range(asked.count):
        rng = random.Random(f"{asked.seed} {number}")
        module = rng.choices(modules, weights)[0]
        made = mutant(ROOT / "nas" / module, rng)
        if made is None or (asked.seed, number) in known:
            continue
        new, line, before, after = made
        with tempfile.TemporaryDirectory() as folder:
            for part in ("nas", "tests", "search_spaces", "benchmarks", "examples", "docs", "results"):
                ignored = shutil.ignore_patterns("__pycache__", "*-[0-9]")
                shutil.copytree(ROOT / part, Path(folder) / part, ignore=ignored)
            for part in ("pyproject.toml", "search.py", "README.md"):
                shutil.copy(ROOT / part, folder)
            (Path(folder) / "nas" / module).write_text(new)
            started = time.monotonic()
            killer = failing_test(Path(folder), module)
        rows.append(
            {
                "seed": asked.seed,
                "number": number,
                "file": f"nas/{module}",
                "line": line,
                "before": before,
                "after": after,
                "killed_by": killer,
                "seconds": round(time.monotonic() - started),
            }
        )
        print(f"{number}: nas/{module}:{line}: {before} -> {after}: {killer or 'SURVIVED'}", flush=True)
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    survivors = [row for row in rows if not row["killed_by"]]
    print(f"{len(rows)} mutants, {len(rows) - len(survivors)} killed")


if __name__ == "__main__":
    main()
