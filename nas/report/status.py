"""How a run stands."""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.base import NasError, RunError, one_line, plural
from nas.report.table import Cell, Column, Table, columns_of
from nas.runs import MANIFEST, RunDirectory, SearchBudget, TrialState, all_trials, course_of, front_of, supernet_trials

RECENT_TRIALS = 50
PAUSE_FACTOR = 20  # a gap this many times the median one is a pause between sessions, not work


def status_dict(run: RunDirectory, now: float | None = None) -> dict[str, Any]:
    """How a run stands at a Unix time (now): JSON of `status --format json`; results/README.md explains the keys."""
    manifest, trials, is_live = run.manifest, all_trials(run), run.is_locked()
    stage, budget = manifest.stage, manifest.budget or SearchBudget()
    counts = {state.value: 0 for state in TrialState}
    for trial in trials:
        counts[trial.state] += 1
    if counts["running"] and not (is_live and stage == "searching"):  # gone with its process, to be measured again
        counts |= {"running": 0, "lost": counts["running"]}
    measured = sum(trial.is_paid for trial in trials)
    per_minute = _throughput([trial.finished for trial in trials if trial.is_paid and trial.finished])
    front = front_of(run.path) if manifest.search is not None else None
    course = course_of(run)
    supernets = Counter(trial.state for trial in supernet_trials(run))
    left: list[float] = []
    if budget.num_trials is not None and per_minute:
        left.append(max(budget.num_trials - measured, 0) / per_minute)
    now = time.time() if now is None else now
    if budget.deadline is not None:
        left.append(max(budget.deadline - now, 0.0) / 60)
    finalists = manifest.finalists
    if stage == "finalists":
        known = None if finalists is None else finalists.minutes_left
        left = [] if finalists is None or known is None else [max(known - (now - finalists.told) / 60, 0.0)]
    return {
        "schema_version": 1,
        "run": run.name,
        "state": stage if is_live or stage in ("created", "finished") else "interrupted",
        "stage": stage,
        "training": None if course is None else course.last,
        "diagnostics": {} if course is None else course.diagnostics,
        "dead_operators": [] if course is None else course.dead,
        "trials": counts,
        "num_trials": budget.num_trials,
        "front_size": None if front is None else len(front.points),
        "hypervolume": None if front is None else front.hypervolume(),
        "throughput_per_minute": per_minute,
        "minutes_left": 0.0 if stage == "finished" else min(left, default=None),
        **({} if finalists is None else {"finalists_share": finalists.share}),
        **({"supernets": dict(supernets)} if supernets else {}),
    }


def status_table(status: Mapping[str, Any]) -> Table:
    """`status_dict` as a table of two columns."""

    def known(key: str, form: str) -> str:
        return "not known yet" if status[key] is None else form.format(status[key])

    asked = "" if status["num_trials"] is None else f" of {status['num_trials']}"
    during = f" while {status['stage']}" if status["state"] == "interrupted" else ""
    rows = [("state", status["state"] + during)]
    if (training := status["training"]) is not None:
        text = (
            "step {step:.0f} of {steps:.0f}, loss largest {loss_largest:.2f} smallest {loss_smallest:.2f} "
            "random {loss_random:.2f} nats, {images_per_second:.0f} images/s"
        )
        rows.append(("supernet", text.format_map(training)))
    rows += [("warning", line) for line in status["dead_operators"]]
    if "supernets" in status:
        rows.append(("supernets", ", ".join(f"{n} {state}" for state, n in status["supernets"].items())))
    rows.append(("trials complete", f"{status['trials']['complete']}{asked}"))
    rows += [(f"trials {name}", str(n)) for name, n in status["trials"].items() if name != "complete" and n]
    if "finalists_share" in status:
        rows.append(("finalists", f"{status['finalists_share']:.0%} trained"))
    size = status["front_size"]
    rows += [
        ("front", "no trial yet" if size is None else plural(size, "architecture")),
        ("hypervolume", known("hypervolume", "{:.4f}")),
        ("throughput", known("throughput_per_minute", "{:.1f} trials/min")),
        ("time left", known("minutes_left", "{:.1f} min")),
    ]
    return Table(title=status["run"], rows=rows, box="SIMPLE")


def status_line(status: Mapping[str, Any]) -> str:
    """`status_dict` in one line, for a log."""
    asked = "" if status["num_trials"] is None else f"/{status['num_trials']}"
    words = [status["state"]]
    if (training := status["training"]) is not None and status["state"] == "training":
        words.append(f"step {training['step']:.0f} of {training['steps']:.0f}")
    if status["trials"]["complete"]:
        words.append(f"trials complete {status['trials']['complete']}{asked}")
    if status["hypervolume"] is not None:
        words.append(f"hypervolume {status['hypervolume']:.3f}")
    return ", ".join(words)


def run_rows(folder: Path) -> list[dict[str, Any]]:
    """The runs in a folder, the newest first, JSON values; of one that cannot be read the reason alone.

    Raises:
        RunError: There is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder", hint="the folder that holds runs, such as results")
    rows: list[dict[str, Any]] = []
    for path in folder.glob(f"[!.]*/{MANIFEST}"):
        row: dict[str, Any] = {"run": path.parent.name, "error": None, **dict.fromkeys(RUN_COLUMNS)}
        try:
            run = RunDirectory.open(path.parent)
            manifest = run.manifest
            row |= {"space": Path(manifest.space_file).stem, "created": manifest.created, "seed": manifest.seed}
            status = status_dict(run)
            row |= {key: status[key] for key in RUN_COLUMNS if key in status}
            row["trials"] = status["trials"]["complete"]
        except NasError as error:
            row["error"] = one_line(error.message)
        rows.append(row)
    return sorted(rows, key=lambda row: (-(row["created"] or 0.0), row["run"]))


RUN_COLUMNS = ("space", "state", "trials", "num_trials", "front_size", "hypervolume", "seed", "created")


def runs_table(found: Mapping[str, Any]) -> Table:
    """`run_rows` as a table."""
    rows: list[Sequence[Cell]] = []
    for row in found["runs"]:
        asked = "" if row["num_trials"] is None else f" of {row['num_trials']}"
        begun = row["created"] and time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        trials = None if row["trials"] is None else f"{row['trials']}{asked}"
        state = row["state"] or row["error"]
        rows.append(
            (row["run"], row["space"], state, trials, row["front_size"], row["hypervolume"], row["seed"], begun)
        )
    columns = [
        *columns_of({"run": "", "space": "", "state": ""}, wraps=True),
        *columns_of({"trials": "{}", "front": "{}"}),
        Column("hypervolume", "{:.3f}", spare=1),
        Column("seed", "{}", spare=2),
        Column("begun", wraps=True, spare=3),
    ]
    return Table(title=f"{plural(len(rows), 'run')} in {found['folder']}", columns=columns, rows=rows)


def _throughput(finished: Sequence[float]) -> float | None:
    """Trials per minute over the recent ones, pauses between sessions left out; None before the third."""
    recent = sorted(finished)[-RECENT_TRIALS:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(recent)]
    if len(gaps) < 2:
        return None
    typical = statistics.median(gaps)
    worked = [gap for gap in gaps if gap <= PAUSE_FACTOR * typical] if typical > 0 else gaps
    return 60 * len(worked) / sum(worked) if sum(worked) > 0 else None
