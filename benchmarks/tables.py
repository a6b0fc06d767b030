"""Where benchmark tables go, and the conditions they carry."""

import csv
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nas.latency import device_name

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"


def write_table(name: str, rows: Sequence[Mapping[str, Any]], notes: str) -> Path:
    """Write rows as CSV with the conditions as comment lines above, print them, and return the path."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    path = REFERENCE / f"{name}.csv"
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "optuna", "ray"))
    lines = [
        f"# {notes}",
        f"# {time.strftime('%Y-%m-%d', time.gmtime())}, {device_name('cpu')}, {len(os.sched_getaffinity(0))} cores, "
        f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}; {packages}",
    ]
    with path.open("w", newline="") as file:
        file.write("\n".join(lines) + "\n")
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text())
    return path
