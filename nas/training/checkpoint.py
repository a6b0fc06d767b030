"""Checkpoints: weights, averaged weights, optimiser state and step, as safetensors and JSON.

A checkpoint is a pair `step-00000120.safetensors` + `step-00000120.json`. The JSON is written last and names
the digest of the tensors' file, so a pair is either whole or ignored. Random state needs no saving: every
step seeds itself from (seed, step).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.base import CheckpointError, DiskError, atomic_write_text, read_json, replacing, writing

_NOTHING: Mapping[str, Mapping[str, Any]] = {}
KEPT = 2  # the newest, and one in case the newest was being replaced when the power failed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by flat name and the JSON beside them."""

    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `name.`, without that."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def save_checkpoint(directory: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a checkpoint so that a kill at any instant leaves the earlier one in force; drop old ones.

    Raises:
        DiskError: It cannot be written; the earlier one is in force.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:08d}.safetensors"
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as scratch:
        scratch.touch()
        mode = scratch.stat().st_mode  # as the user's umask has it; safetensors writes for the owner alone
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, scratch)
        scratch.chmod(mode)
        with scratch.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    record = {**metadata, "step": step, "sha256": digest}
    try:
        atomic_write_text(path.with_suffix(".json"), json.dumps(record, indent=2, sort_keys=True) + "\n")
    except DiskError:
        path.unlink()  # useless alone, and large where there is no room
        raise
    kept = {record.stem for record in sorted(directory.glob("step-*.json"))[-KEPT:]}
    for old in directory.glob("step-*"):  # also what a killed writer left
        if old.stem not in kept:
            old.unlink()
    return path


def load_checkpoint(
    directory: Path, *, expected: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]] = _NOTHING
) -> Checkpoint | None:
    """The newest whole checkpoint; None when there is none.

    `expected` is metadata that must be equal, such as the space's digest. `defaults` is what a checkpoint of an earlier
    version means by lacking a key of such a group.

    Raises:
        CheckpointError: Checkpoints exist but none is whole, or they belong to something else.
    """
    records = sorted(directory.glob("step-*.json"), reverse=True)
    for record in records:
        path = record.with_suffix(".safetensors")
        try:
            metadata = read_json(record)
            with path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == metadata["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            continue
        metadata |= {name: {**values, **metadata.get(name, {})} for name, values in defaults.items()}
        differing = [f"{k}: {metadata.get(k)!r}, expected {v!r}" for k, v in expected.items() if metadata.get(k) != v]
        if differing:
            raise CheckpointError(
                f"{path}: belongs to something else ({'; '.join(differing)})", hint="start a new run with --run DIR"
            )
        return Checkpoint(metadata["step"], load_file(path), metadata)
    if records:
        raise CheckpointError(
            f"{directory}: none of {len(records)} checkpoints is whole", hint="delete the folder to train again"
        )
    return None
