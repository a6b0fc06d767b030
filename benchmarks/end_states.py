"""What commands leave in a folder, and what of it must be the same however they were interrupted."""

import csv
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.runs import RunDirectory


def end_state(folder: Path, *, measures: bool) -> dict[str, Any]:
    """What has to be equal, by file: content without times and latencies, or a digest of the bytes.

    Pages, pictures and cards show latencies, so where the command `measures` them it only counts that they are there.
    """
    return {name: _content(folder, folder / name, measures) for name in sorted(files_of(folder))}


def files_of(folder: Path) -> set[str]:
    """Relative paths of all that the commands wrote, but for locks, logs, temporary files and older checkpoints."""
    left_out = {"stderr", "cpu.json", "lock", "run.log"}
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name not in left_out}
    newest: dict[Path, str] = {}
    for path in found:
        if path.match("step-*.json"):
            newest[path.parent] = max(path.stem, newest.get(path.parent, ""))
    old = {path for path in found if path.match("step-*") and path.stem < newest.get(path.parent, "")}
    return {str(path) for path in found - old if path.parts[0] != "tmp"}


def _content(folder: Path, path: Path, measures: bool) -> Any:
    if path.name == "journal.log":
        return "a cache of the trials"
    if path.name == "trials.jsonl":
        return [
            (t.number, t.architecture.digest, str(t.state), t.error, t.measurement and _timeless(t.measurement.values))
            for t in RunDirectory(path.parent).trials()
        ]
    if path.suffix == ".json" and path.name != "config.json":
        return _timeless(json.loads(path.read_text().replace(str(folder), "here")))  # a run knows where it is
    if path.suffix == ".csv":
        return [_timeless(row) for row in csv.DictReader(path.read_text().splitlines())]
    if measures and path.suffix in (".html", ".png", ".pdf"):
        return "there"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _timeless(v) for k, v in value.items() if not any(word in str(k) for word in _CHANGING)}
    if isinstance(value, list | tuple):
        return [_timeless(v) for v in value]
    return value


_CHANGING = (
    "latency", "created", "started", "finished", "seconds", "_ms", "per_second", "clock", "deadline", "targets",
    "noisy",
)  # fmt: skip


def finished(folder: Path) -> set[str]:
    """What is done and must not be done again, each named so that a second time has another name."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        with suppress(OSError, ValueError):
            if path.name == "trials.jsonl":
                lines = path.read_text().split("\n")[:-1]
                found |= {f"{path}: {line}" for line in lines if json.loads(line)["state"] != "running"}
            if path.suffix == ".json" and path.parent.name in ("trust", "trainings"):
                found.add(f"{path}: {path.stat().st_mtime_ns}")
            alone = {"trust", "trainings"} & {*path.relative_to(folder).parts}  # its log goes when its record comes
            if path.name == "log.csv" and not alone:  # rows of a checkpoint are kept, and hold times of that moment
                newest = max((int(p.stem[5:]) for p in path.parent.glob("step-*.json")), default=0)
                rows = csv.DictReader(path.read_text().splitlines())
                found |= {f"{path}: {sorted(row.items())}" for row in rows if int(row["step"]) <= newest}
            if path.name == "manifest.json" and path.parents[1].name == "supernets":
                scores = json.loads(path.read_text())["supernet_trial"]["scores"]
                found |= {f"{path}: {epoch} {score}" for epoch, score in scores.items()}
    return found


def difference(folder: Path, calm: Path, *, measures: bool) -> str:
    """The first file that ended otherwise; empty where all are equal."""
    mine, theirs = (end_state(path, measures=measures) for path in (folder, calm))
    if missing := sorted(set(theirs) - set(mine)):
        return f"{missing[0]} is missing"
    return next((f"{n} differs{_key(mine[n], theirs[n])}" for n in theirs if mine[n] != theirs[n]), "")


def _key(mine: Any, theirs: Any) -> str:
    """The first key that differs, if both are mappings."""
    if not (isinstance(mine, Mapping) and isinstance(theirs, Mapping)):
        return ""
    return next((f" in {key}" for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)), "")
