"""What a training leaves behind: the weights that are evaluated, loaded without what trained them."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from nas.base import RunError, command_line
from nas.model import Supernet
from nas.runs import RunDirectory
from nas.space import SearchSpace
from nas.training.checkpoint import load_checkpoint


def state_digest(weights: Mapping[str, Tensor]) -> str:
    """First 12 hex digits of the SHA-256 of names and values: which weights a measurement was made with."""
    sha = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()[:12]


def trained_weights(run: RunDirectory) -> dict[str, Tensor] | None:
    """The weights of a run's supernet, averaged where they were, on the CPU; None before the end of its training.

    Raises:
        CheckpointError: The checkpoints are damaged or belong to another run.
    """
    manifest = run.manifest
    expected = {
        "space": manifest.space_digest,
        "train_split": manifest.splits["train"],
        "seed": manifest.seed,
        "precision": manifest.precision,
    }
    checkpoint = load_checkpoint(run.supernet_dir, expected=expected)
    if checkpoint is None:
        return None
    weights = checkpoint.group("ema") or checkpoint.group("supernet")
    # Not the last weights where the newest checkpoint is damaged: the training goes on from the one before.
    return weights if state_digest(weights) == manifest.supernet_digest else None


def weights_digest(run: RunDirectory) -> str:
    """Digest of a run's trained weights; a RunError where they are not trained."""
    digest = run.manifest.supernet_digest
    if digest is None:
        raise _untrained(run)
    return digest


def load_trained(run: RunDirectory, space: SearchSpace, device: torch.device) -> Supernet:
    """The trained supernet of a run, in evaluation mode; `space` is the run's, with the number of classes of the data.

    Raises:
        RunError: Training has not ended.
        CheckpointError: The checkpoints are damaged or belong to another run.
    """  # noqa: DOC501 - `_untrained` is a RunError
    weights = trained_weights(run)
    if weights is None:
        raise _untrained(run)
    supernet = Supernet(space)
    supernet.load_state_dict(weights)
    return supernet.to(device).eval()


def _untrained(run: RunDirectory) -> RunError:
    return RunError(
        f"{run.path}: the supernet is not trained yet",
        hint=command_line("run", run.manifest.space_file, "--run", run.path),
    )
