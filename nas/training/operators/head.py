"""A classifier for a trained start that has none of the data's classes, in closed form.

Shape letters: N images, D channels, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional

from nas.data import ImageSet
from nas.model import Supernet

HEAD_IMAGES = 2000
BATCH = 64
PENALTIES = [10.0**n for n in range(-3, 4)]  # over the mean square of the features' singular values
SCALES = [2.0 ** (n / 2) for n in range(-4, 17)]


@torch.no_grad()
def fit_head(supernet: Supernet, images: ImageSet) -> list[str]:
    """Fit the supernet's classifier to the features of its plain ViT, in place; returns the names of its weights.

    Ridge regression of the classes on the first images, without augmentation. The penalty has the least error on
    images that are left out one by one, and logits the scale with the least cross-entropy on them. One class, or no
    classifier: nothing is done.
    """
    model, info = supernet.dense(), images.info
    stored = dict(supernet.named_parameters())
    if info.num_classes < 2 or "head.weight" not in stored:
        return []
    device, count = next(model.parameters()).device, min(HEAD_IMAGES, len(images))
    batches = (images.normalized(slice(start, min(start + BATCH, count))) for start in range(0, count, BATCH))
    found = [model.forward_head(model.forward_features(pixels.to(device)), pre_logits=True) for pixels in batches]
    weight, bias = ridge(torch.cat(found).cpu(), torch.tensor(images.labels[:count]), info.num_classes)
    stored["head.weight"].copy_(weight)
    stored["head.bias"].copy_(bias)
    return ["head.weight", "head.bias"]


def ridge(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weight [K, D] and bias [K] of the classifier that `fit_head` takes; features [N, D], labels [N]."""
    x_ND, y_NK = features.double(), functional.one_hot(labels, num_classes).double()
    mean_D, mean_K = x_ND.mean(dim=0), y_NK.mean(dim=0)
    left, spectrum, right = torch.linalg.svd(x_ND - mean_D, full_matrices=False)
    aligned = left.T @ (y_NK - mean_K)

    def left_out(penalty: float) -> Tensor:
        """What each image gets from a regression without it, [N, K]."""
        kept = spectrum.square() / (spectrum.square() + penalty)
        leverage = (left.square() @ kept + 1 / len(x_ND)).clamp(max=1 - 1e-9)
        residual = y_NK - mean_K - left @ (kept[:, None] * aligned)
        predicted: Tensor = y_NK - residual / (1 - leverage)[:, None]
        return predicted

    size = float(spectrum.square().mean())
    penalty = min((size * p for p in PENALTIES), key=lambda p: float((left_out(p) - y_NK).square().sum()))
    guessed = left_out(penalty)
    scale = min(SCALES, key=lambda s: float(functional.cross_entropy(s * guessed, labels)))
    weight_KD = aligned.T @ ((spectrum / (spectrum.square() + penalty))[:, None] * right)
    return scale * weight_KD, scale * (mean_K - weight_KD @ mean_D)
