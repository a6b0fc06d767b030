"""Malformed input of every kind against the command line: is there a traceback, a hang, or something written?

    python benchmarks/fuzz.py [--count N] [--seed S] [--kinds KIND ...] [--show OUTCOME ...] [--keep FOLDER]

Each input is made from (seed, kind, number) alone in a folder of its own, and a command is run on it in a forked child
that may use 20 s of CPU time and 24 GiB of addresses. Training, searching and measuring are left out but in the kind
`train`, which takes a step of a real training with whatever values were let through. What was tried is kept in
results/fuzz/, so that the same command goes on where it was interrupted. Writes results/reference/fuzz.csv.
"""

import argparse
import contextlib
import csv
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_inputs import KINDS, Case, make

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "reference" / "fuzz.csv"
LOG = ROOT / "results" / "fuzz"
CPU_S, WALL_S, ADDRESSES = 20, 150, 24 << 30
OUTCOMES = ("ok", "refused", "wrote", "answer", "traceback", "hang", "crash")
"""Ended well; refused with exit code 2 and nothing changed; the same, but something was written; exit code 1; an
exception that no user should see; too long; killed by a signal."""
BAD = ("wrote", "traceback", "hang", "crash")
SHARES = {
    "settings": 0.06, "config": 0.03, "flags": 0.04, "run": 0.05, "weights": 0.05, "images": 0.12, "parquet": 0.12,
    "train": 0.04, "terminal": 0.01,
}  # fmt: skip
"""Of all inputs, for kinds that take seconds; the others share the rest."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of an input."""

    kind: str
    number: int
    outcome: str
    seconds: float
    command: str
    said: str


def counts(kinds: Sequence[str], count: int) -> dict[str, int]:
    """How many inputs of each kind."""
    dear = {kind: max(1, round(SHARES[kind] * count)) for kind in kinds if kind in SHARES}
    cheap = [kind for kind in kinds if kind not in SHARES]
    left = max(count - sum(dear.values()), 0)
    return {kind: dear.get(kind) or left // len(cheap) + (cheap.index(kind) < left % len(cheap)) for kind in kinds}


def attempt(kind: str, number: int, seed: int, folder: Path) -> Tried:
    """Make an input in an empty folder, and run its command there."""
    folder.mkdir(exist_ok=True)
    case = make(kind, random.Random(f"{seed} {kind} {number}"), folder)
    before, started = snapshot(folder, case), time.perf_counter()
    streams = [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    child = os.fork()
    if not child:
        _run(case, folder, streams)
    status = _wait(child, started + WALL_S)
    seconds = time.perf_counter() - started
    said = "\n".join(path.read_text(errors="replace") for path in streams)
    outcome = _outcome(status, said)
    if outcome == "refused" and snapshot(folder, case) != before:
        outcome = "wrote"
    for path in streams:
        path.unlink(missing_ok=True)
    words = said if outcome in BAD else next((s for s in said.splitlines() if s.startswith("error")), "")
    command = " ".join(case.arguments).replace(str(ROOT), "").encode("unicode_escape").decode()
    return Tried(kind=kind, number=number, outcome=outcome, seconds=seconds, command=command[:300], said=words[-3000:])


def snapshot(folder: Path, case: Case) -> set[tuple[str, int, int]]:
    """What lies in a folder: names, sizes and times; lock files, and what a case says may be written, left out."""
    return {
        (str(path.relative_to(folder)), path.lstat().st_size, path.lstat().st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
        if path.name != "lock" and not set(path.relative_to(folder).parts) & set(case.may_write)
    }


def _run(case: Case, folder: Path, streams: Sequence[Path]) -> None:
    """Run a case's command in this process, which ends with it."""
    code = 70
    try:
        os.setsid()
        for descriptor, path in zip((1, 2), streams, strict=True):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (
            open(n, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
            for n in (1, 2)
        )
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 5))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        code = case.run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - that is what is looked for
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    """Exit status of a child; None where it took too long, and was killed."""
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.perf_counter() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _outcome(status: int | None, said: str) -> str:
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return "hang"
    if os.WIFSIGNALED(status):
        return "crash"
    code = os.WEXITSTATUS(status)
    if "Traceback (most recent call last)" in said or code not in (0, 1, 2):
        return "traceback"
    if code == 2 and not ("error:" in said or "Error" in said):
        return "traceback"  # it says nothing
    return {0: "ok", 1: "answer", 2: "refused"}[code]


def session(
    kinds: Sequence[str], count: int, seed: int, show: Iterable[str] = (), keep: Path | None = None
) -> list[Tried]:
    """Try what is not tried yet; every outcome is on disk at once."""
    LOG.mkdir(parents=True, exist_ok=True)
    log = LOG / f"seed-{seed}.jsonl"
    known = {}
    if log.exists() and keep is None:
        rows = (json.loads(line) for line in log.read_text().splitlines() if line.endswith("}"))
        known = {(row["kind"], row["number"]): Tried(**row) for row in rows}
    most = counts(kinds, count)
    wanted = [(kind, number) for kind in kinds for number in range(most[kind])]
    wanted.sort(key=lambda key: (key[0] in SHARES, key[1] / most[key[0]]))  # all kinds side by side
    shown = set(show)
    with tempfile.TemporaryDirectory(prefix="nas-fuzz-") as home, log.open("a") as file:
        os.environ["NAS_CACHE"] = f"{home}/cache"
        for kind, number in wanted:
            if (kind, number) in known:
                continue
            if kind in SHARES and "nas.jobs" not in sys.modules:
                for name in ("nas.jobs", "pyarrow.parquet", "sklearn.datasets"):  # once: a slender process forks fast
                    importlib.import_module(name)
                gc.freeze()  # pages that children share
            folder = Path(home) / f"{kind}-{number}"
            folder.mkdir()
            known[kind, number] = tried = attempt(kind, number, seed, folder)
            if keep is not None and tried.outcome in BAD:
                shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(f"{home}/cache", ignore_errors=True)
            file.write(json.dumps(tried.__dict__) + "\n")
            file.flush()
            if tried.outcome in BAD or tried.outcome in shown:
                print(
                    f"{kind} {number}: {tried.outcome} {tried.seconds:.1f} s\n  {tried.command}\n  {tried.said}",
                    flush=True,
                )
    return [known[key] for key in wanted]


def write_table(tried: Sequence[Tried], seed: int, path: Path = TABLE) -> None:
    """A row a kind: inputs, outcomes, and the longest time. Rows of other seeds stay as they are."""
    head = ["kind", "seed", "inputs", *OUTCOMES, "longest_s"]
    others: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            first, *rows = csv.reader(file)
        others = [row for row in rows if first == head and row[1] != str(seed)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([head, *others])
        for kind in dict.fromkeys(one.kind for one in tried):
            mine = [one for one in tried if one.kind == kind]
            number = Counter(one.outcome for one in mine)
            longest = max(one.seconds for one in mine)
            writer.writerow((kind, seed, len(mine), *(number[name] for name in OUTCOMES), f"{longest:.1f}"))


def main() -> None:
    """Parse, try, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--show", nargs="*", default=[], choices=OUTCOMES, help="also print inputs that ended so")
    parser.add_argument("--keep", type=Path, help="try everything again, and keep the inputs of bad outcomes here")
    options = parser.parse_args()
    for name in ("nas.cli", "nas.report", "nas.space"):
        importlib.import_module(name)

    tried = session(options.kinds, options.count, options.seed, options.show, options.keep)
    if set(options.kinds) == set(KINDS) and options.keep is None:
        write_table(tried, options.seed)
    found = Counter(one.outcome for one in tried)
    print(", ".join(f"{found[name]} {name}" for name in OUTCOMES))
    sys.exit(1 if any(found[name] for name in BAD) else 0)


if __name__ == "__main__":
    main()
