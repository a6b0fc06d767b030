"""Searches that are killed, and candidates that misbehave: what is lost? Over Ray, on a replay table.

    python benchmarks/chaos.py [--runs 20] [--trials 60]

Each run is a search in a process of its own with two Ray workers. At random times its driver, a worker or its raylet
gets SIGKILL, or the driver is killed and half a record is left at the end of the journal and of trials.jsonl (what a
lost disk write looks like); it is started again with the same command until it ends. One in ten architectures raises,
hangs, runs out of memory always or runs out of memory once. Writes results/reference/chaos.csv.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from replay_evaluator import ReplayEvaluator, ReplayTable
from victims import named, processes_of

from nas.arch import Architecture
from nas.base import MACS, TOP1, NasError, Objective, OutOfMemoryError
from nas.evaluation import RacePlan
from nas.runs import Measurement, ParetoFront, RunDirectory, Trial, TrialState
from nas.study import ArchitectureStudy, InlineWorkers, RayWorkers, Search, Workers

TABLE = Path(__file__).resolve().parent / "replay" / "digits.npz"
KINDS = ("driver", "worker", "raylet", "storage")
CONDUCTS = ("raise", "hang", "memory", "memory once")
BAD_SHARE = 10  # one architecture in so many
TIMEOUT_S = 20.0  # of evaluations that take 20 ms: a machine may have five busy processes a core
EVALUATION_S = 0.02
RESTARTS = 30
MARK = "CHAOS_FOLDER"


def conduct_of(architecture: Architecture) -> str:
    """How an architecture behaves, by its digest; most do well."""
    number = int(architecture.digest, 16)
    return "" if number % BAD_SHARE else CONDUCTS[number // BAD_SHARE % len(CONDUCTS)]


class Capricious(ReplayEvaluator):
    """Takes its time, writes down what it is asked, and misbehaves. Without a log it only fails, at once."""

    def __init__(self, table: ReplayTable, log: Path | None = None) -> None:
        super().__init__(table)
        self._log = log

    def evaluate(self, architecture: Architecture, plan: RacePlan | None = None, *, attempt: int = 0) -> Measurement:
        """Look an architecture up, if it is in the mood."""
        conduct = conduct_of(architecture)
        if self._log is None:
            if conduct and conduct != "memory once":
                raise ValueError("cannot be done")
            return super().evaluate(architecture, plan, attempt=attempt)
        with self._log.open("a") as file:
            file.write(architecture.digest + "\n")
        time.sleep(EVALUATION_S)
        if conduct == "raise":
            raise ValueError("cannot be done")
        if conduct == "hang":
            time.sleep(600)
        if conduct == "memory" or (conduct == "memory once" and not attempt):
            raise OutOfMemoryError("out of memory, on purpose")
        return super().evaluate(architecture, plan, attempt=attempt)


def build(log: Path, arrays: Any) -> Capricious:
    """For a Ray actor."""
    return Capricious(ReplayTable.load(TABLE), log)


def objectives_of(table: ReplayTable) -> tuple[Objective, ...]:
    """Top-1 and MACs."""
    return (Objective(TOP1, 10.0), Objective(MACS, 1.1 * float(table.macs.max())))


def drive(folder: Path, trials: int, seed: int) -> None:
    """Search over Ray, or go on with it: what the killed process does."""
    with (folder / "log").open("a") as log:
        log.write("START\n")
    workers = RayWorkers(partial(build, folder / "log"), {}, 2, None, TIMEOUT_S)
    try:
        search(folder / "run", trials, seed, workers)
    finally:
        workers.close()


def undisturbed(folder: Path, trials: int, seed: int) -> tuple[Trial, ...]:
    """The same search in this process, without Ray, without waiting and without kills."""
    return search(folder, trials, seed, InlineWorkers(Capricious(ReplayTable.load(TABLE))))


def search(path: Path, trials: int, seed: int, workers: Workers) -> tuple[Trial, ...]:
    """Search in a run's folder, made or resumed."""
    table = ReplayTable.load(TABLE)
    objectives = objectives_of(table)
    path.mkdir(exist_ok=True)
    run = RunDirectory(path)
    with run.lock():
        study = ArchitectureStudy(table.space, objectives, "predictor", 24, seed, run.journal_path)
        try:
            return Search(table.space, objectives, study, workers, run, racing=True).run(trials=trials)
        finally:
            study.close()


@dataclass(frozen=True, slots=True)
class Ordeal:
    """How a run got through.

    Attributes:
        kills: Kinds of what was killed, in order.
        trials: All, by number.
        repeated: Evaluations of architectures whose trial was on disk before.
        seconds: Wall time.
    """

    kills: tuple[str, ...]
    trials: tuple[Trial, ...]
    repeated: int
    seconds: float


def endure(folder: Path, trials: int, seed: int, kinds: Sequence[str]) -> Ordeal:
    """Run a search to its end, killing something of each kind on the way.

    Raises:
        RuntimeError: It does not end, or ends with an error that no kill explains.
    """
    rng = np.random.default_rng([seed, 5])
    log, kills, repeated, started = folder / "log", [], 0, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log.touch()
    goals = sorted(rng.integers(5, trials - 5, size=len(kinds)).tolist())
    waiting = list(zip(goals, kinds, strict=True))
    for _ in range(RESTARTS):
        known = recorded(folder)
        before = len(log.read_text().split())
        process = start(folder, trials, seed)
        while process.poll() is None:
            if waiting and len(recorded(folder)) >= waiting[0][0]:
                time.sleep(rng.uniform(0, 0.05))
                kind = waiting.pop(0)[1]
                if strike(process, kind, folder, rng):
                    kills.append(kind)
            time.sleep(0.02)
        for child in processes_of(MARK, str(folder)):
            child.kill()
        called = [line for line in log.read_text().split()[before:] if line != "START"]
        repeated += len(set(called) & known)
        if process.returncode == 0:
            ended = tuple(RunDirectory(folder / "run").trials())
            return Ordeal(tuple(kills), ended, repeated, time.monotonic() - started)
        if process.returncode not in (-signal.SIGKILL, 2):
            said = (folder / "stderr").read_text(errors="replace").splitlines()[-30:]
            raise RuntimeError("\n".join([f"exit code {process.returncode}", *said]))
    raise RuntimeError(f"not at its end after {RESTARTS} starts")


def start(folder: Path, trials: int, seed: int) -> "subprocess.Popen[bytes]":
    """A driver; marked in its environment, so that what it leaves behind can be found."""
    root = Path(__file__).resolve().parents[1]
    with (folder / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, __file__, "--drive", folder, "--trials", str(trials), "--seed", str(seed)],
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", MARK: str(folder)},
            stderr=stderr,
            stdout=subprocess.DEVNULL,
        )


def recorded(folder: Path) -> set[str]:
    """Digests of the trials on disk."""
    trials = RunDirectory(folder / "run").trials()
    return {trial.architecture.digest for trial in trials if not trial.is_running}


def strike(process: "subprocess.Popen[bytes]", kind: str, folder: Path, rng: np.random.Generator) -> bool:
    """Kill; False where there was nothing of this kind."""
    if kind in ("driver", "storage"):
        process.kill()
        process.wait()
        if kind == "storage":
            for name in ("journal.log", "trials.jsonl"):
                path = folder / "run" / name
                last = path.read_bytes().splitlines()[-1]
                with path.open("ab") as file:
                    file.write(last[: int(rng.integers(1, len(last)))])
        return True
    word = "ray::_Actor" if kind == "worker" else "raylet/raylet"
    found = [child for child in psutil.Process(process.pid).children(recursive=True) if named(child, word)]
    if not found:
        return False
    found[int(rng.integers(len(found)))].kill()
    return True


def outline(trials: Sequence[Trial]) -> list[tuple[int, str, str]]:
    """(number, digest, state) of every trial."""
    return [(trial.number, trial.architecture.digest, trial.state.value) for trial in trials]


def first_difference(struck: Sequence[Trial], calm: Sequence[Trial]) -> str:
    """The first trial that ended otherwise, and how; empty where all are the same."""
    for mine, theirs in zip(struck, calm, strict=False):
        if (mine.architecture, mine.state) != (theirs.architecture, theirs.state):
            return f"trial {mine.number}: {mine.state} ({mine.error}), undisturbed {theirs.state} ({theirs.error})"
    return "" if len(struck) == len(calm) else f"{len(struck)} trials, undisturbed {len(calm)}"


def main() -> None:
    """Run the searches, compare them with undisturbed ones, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--drive", type=Path, help="used by this program")
    arguments = parser.parse_args()
    if arguments.drive is not None:
        try:
            drive(arguments.drive, arguments.trials, arguments.seed)
        except NasError as error:
            print(error.message, file=sys.stderr)
            sys.exit(2)
        return
    from tables import write_table

    table, rows = ReplayTable.load(TABLE), []
    objectives = objectives_of(table)
    with tempfile.TemporaryDirectory() as home:
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            rng = np.random.default_rng([seed, 6])
            kinds = [*KINDS, *rng.choice(KINDS, size=2)]
            rng.shuffle(kinds)
            struck = endure(Path(home) / f"{seed}", arguments.trials, seed, kinds)
            calm = undisturbed(Path(home) / f"{seed}-calm", arguments.trials, seed)
            volumes = [ParetoFront.from_trials(trials, objectives).hypervolume() for trials in (struck.trials, calm)]
            failed = [trial for trial in struck.trials if trial.state is TrialState.FAILED]
            kept = [trial for trial in struck.trials if trial.whole]
            truth = [
                Trial(**{**fields(trial), "measurement": ReplayEvaluator(table).evaluate(trial.architecture)})
                for trial in [*kept, *failed]
            ]
            whole = ParetoFront.from_trials(
                [Trial(**{**fields(t), "state": TrialState.COMPLETE, "error": None}) for t in truth], objectives
            ).hypervolume()
            rows.append(
                {
                    "run": seed,
                    "trials": len(struck.trials),
                    "kills": " ".join(struck.kills),
                    "failed_or_quarantined": len(failed),
                    "pruned": sum(trial.state is TrialState.PRUNED for trial in struck.trials),
                    "finished_evaluations_repeated": struck.repeated,
                    "same_trials_as_undisturbed": outline(struck.trials) == outline(calm),
                    "first_difference": first_difference(struck.trials, calm),
                    "hypervolume": f"{volumes[0]:.6f}",
                    "hypervolume_undisturbed": f"{volumes[1]:.6f}",
                    "lost_to_quarantine_percent": f"{100 * (1 - volumes[0] / whole):.3f}",
                    "seconds": f"{struck.seconds:.0f}",
                }
            )
            notes = f"{len(rows)} searches of {arguments.trials} trials, predictor with racing"
            write_table("chaos", rows, notes)  # after every run: a benchmark may be stopped too


def fields(trial: Trial) -> dict[str, Any]:
    """Of a trial, to make another from."""
    return {name: getattr(trial, name) for name in trial.__slots__}


if __name__ == "__main__":
    main()
