"""Commands whose processes are killed, stopped or run out of memory at random times: how do they end?

    python benchmarks/kills.py [--kills 100] [--minutes M]

Every stage of a tiny run is a command. It is started, a victim is struck once a random share of the CPU time has passed
that it takes undisturbed, and the same command is given until it ends. `equal` compares the folder with that of a run
that was left alone: trials, weights, fronts and tables without times and latencies, every other file bit for bit.
`repeated` counts what was finished before the blow and was done again, `litter` the files that an undisturbed run does
not leave, `orphans` the processes that outlive their driver by 20 s. Draws depend on the number of a row alone, and
results/reference/kills.csv is the memory: the same command goes on where it ended, in another session, too.
"""

import argparse
import csv
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from end_states import difference, files_of, finished
from tables import REFERENCE, write_table
from victims import Fork, named, of_session, processes_of

from nas.cli import main as main_of_nas

ROOT = Path(__file__).resolve().parents[1]
SPACE = """
name: tiny
backbone: {image_size: 8, patch_size: 2, num_classes: auto, head_dim: 8}
embed_dim: [16, 24]
depth: [1, 2]
layers: {num_tokens: [16, 4], attention: [dynamic, static], num_heads: [1, 2], mlp_ratio: [1, 2]}
"""
RECIPE = (
    "--epochs=2", "--device=cpu", "--set=train.batch_size=256", "--set=train.warmup_epochs=0", "--set=train.lr=0.01",
    "--set=train.checkpoint_minutes=0.0001", "--set=evaluate.final_rounds=3", "--set=search.objectives=[top1, macs]",
)  # fmt: skip
WHOLE = ("--set=tune.grace=2",)  # what is stopped early goes by who reports first, killed or not
MARK = "NAS_KILLS_CASE"
GRACE_S = 20.0  # for processes to notice that their driver is dead
STOP_S = 60.0
IMPORTED = (
    "sklearn.datasets",
    "matplotlib.pyplot",
    "onnx",
    "onnxruntime",
    "torch.onnx",
    "torch.export",
    "pandas",
)  # by stages
PATIENCE_S = 1200.0  # for one start on a busy machine
STARTS = 6
ENDED_BY_RAY = ["error: Ray cannot be started: one of its processes died", "hint: the same command goes on"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, the stage whose folder it starts from, and who of its processes is struck."""

    arguments: tuple[str, ...]
    before: str = ""
    victims: tuple[str, ...] = ("driver", "group")
    measures: bool = False  # latencies, which are never the same


RAY = ("driver", "worker", "raylet", "group")
STAGES = {
    "train": Stage(("train", "tiny.yaml", "--run=r", *RECIPE)),
    "search": Stage(("search", "r", "--trials=24", "--workers=0"), "train", measures=True),
    "search with Ray": Stage(("search", "r", "--trials=40", "--workers=2"), "train", RAY, measures=True),
    "run": Stage(("run", "tiny.yaml", "--run=r", "--trials=12", "--workers=0", *RECIPE), measures=True),
    "supernet trials": Stage(
        ("run", "tiny.yaml", "--run=r", "--trials=8", "--workers=2", "--supernet-trials=3", *RECIPE, *WHOLE),
        "",
        RAY,
        True,
    ),
    "latency": Stage(("latency", "pack", "r", "--to=pack"), "search"),
    "report": Stage(("report", "r"), "search"),
    "export": Stage(("export", "r", "--pick=knee", "--to=bundle"), "search"),
    "retrain": Stage(("retrain", "r", "--pick=knee", "--epochs=1", "--workers=0", "--to=bundle"), "search"),
    "trust": Stage(("trust", "r", "--architectures=4", "--seeds=1", "--epochs=1", "--workers=0"), "search"),
    "trust with Ray": Stage(
        ("trust", "r", "--architectures=4", "--seeds=2", "--epochs=1", "--workers=2"), "search", RAY
    ),
}
REPLACED = ("train", "search with Ray")  # elsewhere the candidate that has no memory left fails (law 6)
KILLED = ("driver", "worker", "raylet", "group")


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens in one row: drawn from its number."""

    stage: str
    victim: str
    share: float  # of the undisturbed CPU time, before it comes

    @classmethod
    def of(cls, number: int) -> "Blow":
        """Stages in turn; one in twelve is stopped for a minute, some run out of memory, the others are killed."""
        rng = np.random.default_rng([number, 17])
        stage = list(STAGES)[number % len(STAGES)]
        kind = "stopped" if number % 12 == 5 else "out of memory" if stage in REPLACED and number % 3 == 2 else ""
        victims = STAGES[stage].victims
        victim = kind or victims[int(rng.integers(len(victims)))]
        return cls(stage, victim, float(rng.uniform(0.3, 1.0)))  # before that Python imports its packages


def start(stage: str, folder: Path) -> "subprocess.Popen[bytes] | Fork":
    """The stage's command in a folder, in a session of its own.

    With Ray it is started as users do, and its processes are marked, so that they are found when their parents are
    gone. Elsewhere it is a fork of this process: most of the CPU time would go into importing torch.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    here = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    words = [str(ROOT / "search.py"), *STAGES[stage].arguments]
    if "raylet" not in STAGES[stage].victims:

        def run() -> int:
            os.chdir(folder)
            os.environ.update(here)
            tempfile.tempdir = None
            sys.argv[:] = words
            return main_of_nas()

        return Fork(run, folder / "stderr")
    with (folder / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder,
            env={**os.environ, **here, "PYTHONPATH": str(ROOT), MARK: str(folder)},
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        )  # fmt: skip


def family_of(process: "subprocess.Popen[bytes] | Fork", folder: Path) -> list[psutil.Process]:
    """A command's processes that live."""
    return of_session(process.pid) if isinstance(process, Fork) else processes_of(MARK, str(folder))


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its living descendants."""
    total = 0.0
    with suppress(psutil.Error):
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += sum(one.cpu_times()[:2])
    return total


def undisturbed(stage: str, home: Path) -> tuple[Path, float]:
    """The folder of a stage that was left alone, made where it is missing, and the CPU seconds that it took."""
    folder = home / stage.replace(" ", "-")
    record = folder / "cpu.json"
    if not record.exists():
        shutil.rmtree(folder, ignore_errors=True)
        begin(stage, folder, home)
        process, took = start(stage, folder), 0.0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            took = max(took, cpu_seconds(watched))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{stage}: exit code {process.returncode}\n{(folder / 'stderr').read_text()[-3000:]}")
        record.write_text(json.dumps(took))
    return folder, float(json.loads(record.read_text()))


def begin(stage: str, folder: Path, home: Path) -> None:
    """Make the folder in which a stage starts."""
    if before := STAGES[stage].before:
        not_its = shutil.ignore_patterns("tmp", "stderr", "cpu.json")
        shutil.copytree(undisturbed(before, home)[0], folder, ignore=not_its)
    else:
        folder.mkdir(parents=True)
        (folder / "tiny.yaml").write_text(SPACE)


# --- a row ---------------------------------------------------------------------------------------------------------


def endure(blow: Blow, folder: Path, home: Path) -> dict[str, Any]:
    """Give a stage's command until it ends, with one blow; the columns of a row but its number."""
    calm, cpu_s = undisturbed(blow.stage, home)
    share, attempts, struck_s, known, orphans = blow.share, 0, None, set[str](), 0
    shutil.rmtree(folder, ignore_errors=True)
    begin(blow.stage, folder, home)
    drivers: list[int] = []
    problem = ""
    while attempts < STARTS:
        attempts += 1
        process, began = start(blow.stage, folder), time.monotonic()
        drivers.append(process.pid)
        watched = psutil.Process(process.pid)
        while process.poll() is None and time.monotonic() - began < PATIENCE_S:
            if struck_s is None and cpu_seconds(watched) >= share * cpu_s:
                known = finished(folder)
                if strike(process, blow, folder):
                    struck_s = time.monotonic() - began
            time.sleep(0.02)
        if process.poll() is None:
            problem = "hang"
            process.kill()
        code = process.wait()
        orphans += outlived(process, folder)
        said = (folder / "stderr").read_text(errors="replace").splitlines()
        if code == 1 and said[-2:] == ENDED_BY_RAY:  # past all of Python, whose exit code would be 2
            code = 2
        if problem or code not in (0, 2, -signal.SIGKILL):
            problem = problem or f"exit code {code}"
            break
        if code == 0 and struck_s is None and attempts == 1:  # it was over first: an earlier blow
            share, attempts = share / 2, 0
            shutil.rmtree(folder)
            begin(blow.stage, folder, home)
        elif code == 0:
            break
    if not problem and "Traceback" in (folder / "stderr").read_text(errors="replace"):
        problem = "traceback"
    differing = problem or difference(folder, calm, measures=STAGES[blow.stage].measures)
    temporary = [*(folder / "tmp").iterdir(), *(p for pid in drivers for p in Path("/tmp").glob(f"nas-*-{pid}-*"))]
    known_temporary = {path.name for path in (calm / "tmp").iterdir()}
    litter = sorted(files_of(folder) - files_of(calm))
    litter += [path.name for path in temporary if path.name not in known_temporary]
    return {
        "stage": blow.stage,
        "victim": blow.victim,
        "seconds_after_start": "" if struck_s is None else f"{struck_s:.1f}",
        "attempts": attempts,
        "equal": "yes" if not differing else f"no: {differing}",
        "repeated": len(known - finished(folder)),
        "litter": len(litter) if not litter else f"{len(litter)}: {litter[0]}",
        "orphans": orphans,
    }


def strike(process: "subprocess.Popen[bytes] | Fork", blow: Blow, folder: Path) -> bool:
    """Strike the victim; False where there is none yet."""
    family = family_of(process, folder)
    workers = [one for one in family if named(one, "ray::") and not named(one, "ray::IDLE")]
    raylets = [one for one in family if named(one, "raylet/raylet")]
    driver = [one for one in family if one.pid == process.pid]
    chosen = {
        "driver": driver,
        "worker": workers[:1],
        "raylet": raylets,
        "group": family,
        "stopped": driver,
        "out of memory": workers[:1] if "worker" in STAGES[blow.stage].victims else driver,
    }[blow.victim]
    for one in chosen:
        with suppress(psutil.NoSuchProcess):
            if blow.victim == "out of memory":
                one.rlimit(resource.RLIMIT_AS, (one.memory_info().vms, -1))
            else:
                one.send_signal(signal.SIGSTOP if blow.victim == "stopped" else signal.SIGKILL)
    if blow.victim == "stopped":
        time.sleep(STOP_S)
        for one in chosen:
            one.send_signal(signal.SIGCONT)
    return bool(chosen)


def outlived(process: "subprocess.Popen[bytes] | Fork", folder: Path) -> int:
    """How many processes of a driver that has ended live on; they are killed."""
    deadline = time.monotonic() + GRACE_S
    while (left := family_of(process, folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    return len(left)


def rows_left(known: list[dict[str, str]], kills: int) -> Iterator[int]:
    """Numbers of the rows that are missing, until so many kills are in the table."""
    done, number = {int(row["number"]) for row in known}, 0
    missing = kills
    while missing:
        missing -= Blow.of(number).victim in KILLED
        if number not in done:
            yield number
        number += 1


def main() -> None:
    """Add the rows that are missing, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in the table at the end")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row later than this")
    arguments = parser.parse_args()
    began, table = time.monotonic(), REFERENCE / "kills.csv"
    lines = [line for line in table.read_text().splitlines() if line[0] != "#"] if table.exists() else []
    rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    for name in IMPORTED:
        importlib.import_module(name)
    sources = b"".join(path.read_bytes() for path in [Path(__file__), *sorted((ROOT / "nas").rglob("*.py"))])
    home = Path(tempfile.gettempdir()) / f"kills-{os.getuid()}-{hashlib.sha256(sources).hexdigest()[:8]}"
    home.mkdir(mode=0o700, exist_ok=True)
    for number in rows_left(rows, arguments.kills):
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        case = home / f"case-{number}"
        rows.append({"number": number, **endure(Blow.of(number), case, home)})
        if rows[-1]["equal"] == "yes":
            shutil.rmtree(case)
        rows.sort(key=lambda row: int(row["number"]))
        kills = sum(row["victim"] in KILLED for row in rows)
        good = sum(row["equal"] == "yes" for row in rows)
        write_table(
            "kills", rows, f"{kills} kills of {arguments.kills}; {good} of {len(rows)} commands ended as undisturbed"
        )


if __name__ == "__main__":
    main()
