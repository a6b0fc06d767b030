"""What a newcomer waits for: help, the first line, a check, a front of the digits by the main job as it is.

    python benchmarks/first_screen.py [--rounds 3] [--without-run]

Wall clock and processor time of each command, all its processes together, from an empty folder; the least and the
median of the rounds (the main job: once). Writes results/reference/first_screen.csv.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from statistics import median
from typing import Any

from tables import write_table

NAS = (sys.executable, "-m", "nas")
SHORT = {
    "nas --help": (*NAS, "--help"),
    "nas spaces": (*NAS, "spaces"),
    "nas check digits": (*NAS, "check", "digits"),
    "nas run digits, its first line": (*NAS, "run", "digits", "--dry-run"),
}
LONG = {"nas run, which is the main job": (*NAS, "run")}


def timed(command: tuple[str, ...], folder: str, *, first_line: bool) -> tuple[float, float]:
    """Seconds by the clock and of processors until it ends, or until its first line is there."""
    before, started = os.times(), time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        if first_line:
            process.stdout.readline()
            seconds = time.perf_counter() - started
            process.terminate()
        process.stdout.read()
    if not first_line:
        seconds = time.perf_counter() - started
        assert process.returncode == 0, command
    after = os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Run them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-run", action="store_true", help="leave the main job out")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, command in {**SHORT, **({} if asked.without_run else LONG)}.items():
            rounds = 1 if name in LONG else asked.rounds
            both = [timed(command, folder, first_line="first line" in name) for _ in range(rounds)]
            seconds, cpu = zip(*both, strict=True)
            row: dict[str, Any] = {"command": name, "rounds": rounds, "seconds": f"{median(seconds):.2f}"}
            rows.append(row | {"least_seconds": f"{min(seconds):.2f}", "cpu_seconds": f"{median(cpu):.2f}"})
    write_table(
        "first_screen",
        rows,
        "what a newcomer waits for; where only the first line is waited for, the command is stopped then",
    )


if __name__ == "__main__":
    main()
