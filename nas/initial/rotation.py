"""Other axes for the residual stream of a plain ViT, so that its first channels hold most of what is read from it."""

import torch
from torch import Tensor

from nas.initial.plain import Weights, depth_of
from nas.training import Calibration


def rotate_stream(weights: Weights, calibration: Calibration) -> dict[str, Tensor]:
    """The same plain ViT on the principal axes of its residual stream, the most important first.

    A layer norm leaves of a token its direction among those that are orthogonal to (1, ..., 1). Its gains and biases
    are folded into what reads its output, and principal component k of `Calibration.stream`, the directions weighted by
    how much is read of them, is put on axis k of Helmert's basis: 1/sqrt(k(k+1)) in the first k channels, minus k times
    that in the next. The first m channels then hold the first m - 1 components and a constant, which the norm of a
    subnet of width m takes away. The whole network computes the same logits; its features have other axes and no gains.
    Where the stream itself goes through a norm (`norm_pre`, or `norm` before `fc_norm`) or ends without one, nothing is
    changed.

    The calibration is of the network with these weights, and does not hold for the result.

    Source: SliceGPT (arXiv 2401.15024). Differs: one rotation for all layers, so that skip connections need no matrices
    and one store serves every width; layer norms stay, by Helmert's basis, where it makes them RMS norms.
    """
    last = [name for name in ("norm", "fc_norm") if f"{name}.weight" in weights]
    if "norm_pre.weight" in weights or len(last) != 1:
        return dict(weights)
    width = calibration.embed_dim
    # (1, ..., 1) is made the last component, also beside others of which the images showed nothing.
    stream = calibration.stream - calibration.stream.trace() / width
    components = torch.linalg.eigh(stream).eigenvectors.flip(1)[:, : width - 1]
    axes = _helmert(width) @ components.T
    centred = axes - axes.mean(dim=1, keepdim=True)
    found = {name: value.double() for name, value in weights.items()}
    reads = [(last[0], "head")]
    for i in range(depth_of(weights)):
        reads += [(f"blocks.{i}.norm1", f"blocks.{i}.attn.qkv"), (f"blocks.{i}.norm2", f"blocks.{i}.mlp.fc1")]
        for name in (f"blocks.{i}.attn.proj", f"blocks.{i}.mlp.fc2"):
            found |= {f"{name}.{kind}": centred @ found[f"{name}.{kind}"] for kind in ("weight", "bias")}
    for norm, reader in reads:
        gain, bias = found[f"{norm}.weight"], found[f"{norm}.bias"]
        if f"{reader}.weight" in found:
            weight = found[f"{reader}.weight"]
            found[f"{reader}.bias"] = found[f"{reader}.bias"] + weight @ bias
            found[f"{reader}.weight"] = (weight * gain) @ axes.T
        found |= {f"{norm}.weight": torch.ones_like(gain), f"{norm}.bias": torch.zeros_like(bias)}
    kernel = found["patch_embed.proj.weight"]
    found["patch_embed.proj.weight"] = (centred @ kernel.flatten(1)).view_as(kernel)
    found["patch_embed.proj.bias"] = centred @ found["patch_embed.proj.bias"]
    found |= {name: found[name] @ centred.T for name in ("cls_token", "reg_token", "pos_embed") if name in found}
    return {name: value.to(weights[name].dtype) for name, value in found.items()}


def _helmert(size: int) -> Tensor:
    """[size, size - 1]; orthonormal columns, the k-th of which sums to 0 over the first k + 1 rows and ends there."""
    counts = torch.arange(1, size, dtype=torch.float64)
    basis = torch.ones(size, size - 1, dtype=torch.float64).triu()
    basis[range(1, size), range(size - 1)] = -counts
    return basis / (counts * (counts + 1)).sqrt()
