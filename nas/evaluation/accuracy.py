"""Which images a classifier gets right."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nas.errors import EvaluationError
from nas.training.data import ImageSet


def count_correct(
    model: nn.Module, images: ImageSet, *, batch_size: int, device: torch.device, precision: str
) -> NDArray[np.bool_]:
    """Which images the model classifies right.

    Args:
        model: In evaluation mode, on `device`; normalised images [B, 3, S, S] -> logits [B, K].
        images: What to classify.
        batch_size: Images per forward pass; small batches stay in the cache of a CPU.
        device: Where to compute.
        precision: `bf16` computes under autocast; `fp32` does not.

    Returns:
        [N] bool.

    Raises:
        EvaluationError: A logit is not finite.
    """
    correct = torch.empty(len(images), dtype=torch.bool)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), batch_size):
            chosen = slice(start, start + batch_size)
            logits = model(images.normalized(chosen).to(device))
            if not torch.isfinite(logits).all():
                raise EvaluationError(f"logits of images {start} to {start + len(logits) - 1} are not finite")
            correct[chosen] = logits.argmax(dim=1).cpu() == images.labels[chosen]
    return correct.numpy()
