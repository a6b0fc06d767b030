"""Top-1 accuracy of a classifier on decoded images."""

import torch
from torch import Tensor, nn

from nas.errors import EvaluationError
from nas.training.data import ImageSet


def count_correct(
    model: nn.Module, images: ImageSet, *, batch_size: int, device: torch.device, precision: str
) -> Tensor:
    """Which images the model classifies right.

    Args:
        model: In evaluation mode, on `device`; normalised images [B, 3, S, S] -> logits [B, K].
        images: What to classify.
        batch_size: Images per forward pass; small batches stay in the cache of a CPU.
        device: Where to compute.
        precision: `bf16` computes under autocast; `fp32` does not.

    Returns:
        [N] bool, on the CPU.

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
    return correct


def top1_percent(correct: Tensor) -> float:
    """Share of right answers, percent."""
    return 100.0 * float(correct.sum()) / len(correct)


def wilson_interval(correct: Tensor) -> tuple[float, float]:
    """95 % interval of the accuracy that the images stand for, percent (Wilson's score, from scipy)."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return 100.0 * float(interval.low), 100.0 * float(interval.high)
