"""How near `--dry-run` comes: the forecast of three runs beside what they then needed.

    python benchmarks/forecast.py [--presets digits,digits_long,cifar_small] [--workers 2]

`cifar_small` needs NAS_DATA, a data spec such as `torch/cifar10:DIR`, and is left out without it. Time is that of
the whole command, memory the largest sum over the process and all that it started (what they share counts once),
disk all files of the run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from tables import write_table

from nas.jobs import WATCH_S, memory_of, size_of

ROOT = Path(__file__).resolve().parent.parent
SPACES = ROOT / "search_spaces"
DATA = os.environ.get("NAS_DATA")
PRESETS = {
    "digits": [str(SPACES / "digits.yaml"), "--epochs=10", "--trials=100"],
    "digits_long": [str(SPACES / "digits.yaml"), "--trials=400"],
    "cifar_small": [str(SPACES / "cifar_small.yaml"), f"--data={DATA}", "--epochs=1", "--trials=24"],
}


def measured(arguments: Sequence[str]) -> tuple[float, int, str]:
    """Run a command: seconds, largest memory of all its processes in bytes, and what it printed."""
    started, most = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, str(ROOT / "search.py"), *arguments, "--format=json", "--quiet"]
        process = psutil.Popen(command, stdout=output)
        while process.poll() is None:
            family = [process, *process.children(recursive=True)] if process.is_running() else []
            most = max(most, sum(map(memory_of, family)))
            time.sleep(WATCH_S)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        return seconds, most, output.read()


def compare(name: str, workers: int) -> list[dict[str, Any]]:
    """Rows of one preset: forecast, actual and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        arguments = ["run", *PRESETS[name], f"--run={run}", f"--workers={workers}"]
        dry_s, _, printed = measured([*arguments, "--dry-run"])
        forecast = json.loads(printed)
        seconds, memory, _ = measured(arguments)
        disk = size_of(run)
    figures = [
        ("time", "s", forecast["total_s"], seconds),
        ("memory", "MB", forecast["memory_bytes"] / 1e6, memory / 1e6),
        ("disk", "MB", forecast["disk_bytes"] / 1e6, disk / 1e6),
    ]
    return [
        {
            "preset": name,
            "workers": workers,
            "figure": figure,
            "unit": unit,
            "forecast": round(expected, 2),
            "actual": round(actual, 2),
            "forecast_over_actual": round(expected / actual, 3),
            "dry_run_s": round(dry_s, 1),
        }
        for figure, unit, expected, actual in figures
    ]


def main() -> None:
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(name for name in PRESETS if DATA or name != "cifar_small"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = [row for name in options.presets.split(",") for row in compare(name, options.workers)]
    presets = "; ".join(
        f"{name}: {' '.join(PRESETS[name][1:])}" for name in options.presets.split(",") if name != "cifar_small"
    )
    write_table("forecast", rows, f"`run --dry-run`, then `run`; {presets}; cifar_small: one epoch, 24 trials")


if __name__ == "__main__":
    main()
