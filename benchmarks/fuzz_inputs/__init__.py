"""Malformed inputs for `fuzz.py`, each made from a random generator alone: files in a folder, and a command line."""

import random
from collections.abc import Callable
from pathlib import Path

from fuzz_inputs.case import Case
from fuzz_inputs.commands import flags, terminal
from fuzz_inputs.data import image_folder
from fuzz_inputs.documents import config, document, settings, space
from fuzz_inputs.runs import damaged_run
from fuzz_inputs.tables import parquet
from fuzz_inputs.training import train, weights

KINDS: dict[str, Callable[[random.Random, Path], Case]] = {
    "space": space,
    "document": document,
    "settings": settings,
    "config": config,
    "flags": flags,
    "run": damaged_run,
    "weights": weights,
    "images": image_folder,
    "parquet": parquet,
    "train": train,
    "terminal": terminal,
}


def make(kind: str, rng: random.Random, folder: Path) -> Case:
    """An input of a kind, in an empty folder."""
    return KINDS[kind](rng, folder)
