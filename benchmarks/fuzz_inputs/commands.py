"""Command lines with odd arguments, and terminals that cannot show much."""

import functools
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_inputs.case import ODD, ROOT, RUNS, SPACES, TINY, Case


@functools.cache
def _commands() -> dict[tuple[str, ...], list[Any]]:
    """Every command of the product with its parameters, as click knows them."""
    import typer

    from nas.cli.app import app

    found: dict[tuple[str, ...], list[Any]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))
        if not hasattr(command, "commands"):
            found[path] = command.params

    walk(typer.main.get_command(app), ())
    return found


def flags(rng: random.Random, folder: Path) -> Case:
    """Commands with odd arguments and options."""
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "d").mkdir()
    (folder / "f.txt").write_text("text\n")
    words = (
        "tiny.yaml",
        "d",
        "f.txt",
        "missing",
        "",
        ".",
        "/",
        "/dev/null",
        "a" * 300,
        "a\nb",
        "...",
        "..",
        "-",
        str(RUNS[0]),
        "knee",
        *ODD,
    )
    command, parameters = rng.choice(sorted(_commands().items()))
    given: list[str] = [*command]
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            fitting = "tiny.yaml" if parameter.name == "space" else str(RUNS[0])
            given.append(fitting if rng.random() < 0.6 else rng.choice(words))
        elif rng.random() < (0.9 if parameter.required else 0.12) and parameter.name not in (
            "help",
            "ray_address",
            "storage",
        ):
            name = rng.choice(parameter.opts)
            given.append(name if parameter.is_flag else f"{name}={rng.choice(words)}")
    if rng.random() < 0.1:
        given.insert(
            rng.randrange(len(given) + 1), rng.choice(("--", "-", "--x", "-q", "--debugg", "--set", "--version"))
        )
    if command == ("report",) or given[0] in ("search", "export", "retrain", "trust", "finalists", "rank-layers"):
        given = [_copied(folder) if word == str(RUNS[0]) else word for word in given]
    return Case(arguments=tuple(given), may_write=("r", "old_run"))


def _copied(folder: Path) -> str:
    if not (folder / "old_run").exists():
        shutil.copytree(RUNS[0], folder / "old_run")
    return "old_run"


def terminal(rng: random.Random, folder: Path) -> Case:
    """Terminals that cannot show much."""
    environment = rng.choice(
        (
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"COLUMNS": "20"},
            {"COLUMNS": "1"},
            {"TERM": "dumb"},
            {"COLUMNS": "0"},
            {"PYTHONIOENCODING": "latin-1"},
        )
    )
    (folder / "spa cé.yaml").write_text(TINY + "é: 1\n")
    command = rng.choice(
        (
            ("front", str(RUNS[0]), "--format=table"),
            ("status", str(RUNS[0]), "--format=table"),
            ("show", str(RUNS[0]), "knee", "--format=table"),
            ("check", str(SPACES[0]), "--format=table"),
            ("check", "spa cé.yaml"),
            ("compare", *map(str, RUNS), "--format=table"),
            ("--help",),
            ("run", "--help"),
            ("front", str(RUNS[0]), "--format=csv"),
            ("check", "\udce9.yaml"),
        )
    )
    return _Process(arguments=command, environment=tuple(environment.items()), works=rng.random() < 0.5)


@dataclass(frozen=True, kw_only=True)
class _Process(Case):
    """A command in a process of its own; `works`: its output goes to a reader that leaves."""

    def run(self) -> int:
        """Run it."""
        command = [sys.executable, str(ROOT / "search.py"), *(os.fsencode(word) for word in self.arguments)]
        environment = {**os.environ, **dict(self.environment)}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE if self.works else None)
        if child.stdout is not None:
            child.stdout.close()
        code = child.wait()
        return 0 if self.works and code in (0, 1, 141) else code  # 1 is what click gives where the reader has left
