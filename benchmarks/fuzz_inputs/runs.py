"""Folders of runs that are damaged."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from fuzz_inputs.case import RUNS, Case, mutated, spoiled


def damaged_run(rng: random.Random, folder: Path) -> Case:
    """A run's folder in which something is missing, torn, exchanged or of something else."""
    source = rng.choice(RUNS)
    run = folder / "run"
    shutil.copytree(source, run)
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != "fuzzed")
        weights = [0.2 if path.suffix in (".safetensors", ".csv") else 1.0 for path in files]
        (path,) = rng.choices(files, weights)
        match rng.randrange(8):
            case 0:
                path.unlink()
            case 1:
                path.unlink()
                path.mkdir()
            case 2:
                path.write_bytes(spoiled(path.read_bytes(), rng))
            case 3:
                shutil.copy(rng.choice([p for p in RUNS[source == RUNS[0]].rglob("*") if p.is_file()]), path)
            case 4:
                lines = path.read_bytes().split(b"\n")
                rng.shuffle(lines)
                path.write_bytes(b"\n".join(lines[: rng.randint(0, len(lines))]))
            case 5 | 6:
                path.write_bytes(_json_damage(path.read_bytes(), rng))
            case 7:
                path.write_text(mutated(path.read_bytes().decode(errors="replace"), rng), errors="surrogateescape")
    command = rng.choice(
        (
            ("status",), ("front",), ("report",), ("show", "knee"), ("compare", str(source)), ("search", "--workers=0"),
            ("export", "--pick=knee", "--to=out", "--formats=timm"), ("retrain", "--pick=knee", "--workers=0"),
            ("trust", "--workers=0"), ("finalists", "--workers=0"),
            ("rank-layers", "--images=2"), ("latency",), ("front", "--sort=top1"),
            ("status", "--format=table"), ("front", "--format=table"), ("front", "--format=csv"),
        )
    )  # fmt: skip
    name, *rest = command
    return Case(arguments=(name, "run", *rest), may_write=("run", "out"))


def _json_damage(content: bytes, rng: random.Random) -> bytes:
    """A JSON file, or lines of JSON, with values exchanged or keys lost."""
    lines = content.split(b"\n")
    i = rng.randrange(len(lines))
    whole = True
    try:
        values = json.loads(content)
    except ValueError:
        whole = False
        try:
            values = json.loads(lines[i])
        except ValueError:
            return spoiled(content, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(values)
    if places:
        group, key = rng.choice(places)
        if rng.random() < 0.3 and isinstance(group, dict):
            del group[key]
        else:
            group[key] = rng.choice(
                (None, True, -1, 0, 1e300, 10**30, "x", "", [], {}, [1], {"a": 1}, float("nan"), "\0", "../x", "é")
            )
    text = json.dumps(values).encode()
    return text if whole else b"\n".join([*lines[:i], text, *lines[i + 1 :]])
