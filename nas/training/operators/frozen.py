"""Weights of a trained start that stay as they are where the head, norms and biases alone are trained."""

import re

from nas.model import Supernet

FROZEN = re.compile(r"patch_embed\.proj(\.overlap)?\.weight|blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))\.weight")
"""The matrices of a plain ViT, by their stored names: 97 to 99 of 100 of its parameters."""


def freeze(supernet: Supernet) -> None:
    """Keep the matrices of the plain ViT from being trained: they get no gradient, and no place in an optimiser.

    What remains are the classifier, norms, biases, positions and class token, and all that operators have of their own,
    low-rank factors among it. The factors by which matrices stand in for what is cut (`nas.model.fitted`) are never
    trained.

    Source: biases alone, BitFit (arXiv 2106.10199); norms alone, arXiv 2003.00152. Differs: both, and the classifier.
    """
    for name, parameter in supernet.named_parameters():
        if FROZEN.fullmatch(name):
            parameter.requires_grad_(False)
