"""First values that follow from the tokens an operator will see: gain of linear attention, GLAD's queries and gamma.

Shape letters: B batch, T tokens, P patch tokens in, M patch tokens out, D channels, H heads, d channels per head.
"""

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.model import DynamicAttention, Subnet, Supernet, average_tokens

FIRST_IMAGES = 256
SHARPNESS = 0.5
"""Entropy of a query's weights over that of uniform ones. Half is neither an average of all tokens nor one token, from
where no gradient leads to the others."""
GATHERED = 0.1
"""Norm of what GLAD gathers, times gamma, over that of the average that it is added to."""
CLOSER_IMAGES = 16
"""Of whose tokens the entropy is measured."""


@torch.no_grad()
def fit_operators(supernet: Supernet, batches: Iterable[Tensor], *, gains: bool) -> list[str]:
    """Fit what a plain ViT does not have to the tokens of the supernet's plain ViT, in place; returns the names.

    - `attn.linear_gain`, with `gains`: E||A_h V_h||, as linear attention's heads are unit vectors (METHODS 5.9), so
      that it is as loud as the dynamic attention of a trained start. Random weights keep gains of 1: linear attention
      is 3.5 to 5.6 times as loud then, the other soon follows, and networks alone end 1 to 5 points better
      (results/LOG.md, 2026-11-29).
    - `reducer.queries_<M>`: near and different places. A query is what sets the tokens of its window apart from others,
      (C + tr C / D)^-1 (E[z | window] - E[z]) for tokens z and their covariance C, as long as its weights over the
      tokens have half the entropy of uniform ones.
    - `reducer.gamma`: what is gathered is a tenth of the average that it is added to. With 0 the queries have no
      gradient.

    The batches are normalised images [B, C, S, S], the same for the same values. Where the space has none of these
    operators, nothing is computed.
    """
    stored = dict(supernet.named_parameters())
    fitted = [name for name in stored if _is_fitted(name, gains)]
    if not fitted:
        return []
    watches = _watch(supernet.dense(), batches)
    for i, watch in enumerate(watches):
        prefix = f"blocks.{i}."
        own = {name.removeprefix(prefix): stored[name] for name in fitted if name.startswith(prefix)}
        for name, value in watch.first_values(own).items():
            own[name][tuple(map(slice, value.shape))].copy_(value)
    return fitted


def _is_fitted(name: str, gains: bool) -> bool:
    is_gain = gains and name.endswith(".attn.linear_gain")
    return is_gain or name.endswith(".reducer.gamma") or ".reducer.queries_" in name


def _watch(model: Subnet, batches: Iterable[Tensor]) -> "list[_LayerWatch]":
    watches = [_LayerWatch(block, model.num_prefix_tokens) for block in model.blocks]
    for images in batches:
        model(images.to(next(model.parameters()).device))
    return watches


class _LayerWatch:
    """Sums over images of one layer's patch tokens and heads: float64, on the CPU."""

    def __init__(self, block: nn.Module, prefix: int) -> None:
        self.prefix, self.images, self.num_tokens = prefix, 0, 0
        self.tokens_PD = self.moments_DD = self.norms_H = torch.zeros((), dtype=torch.float64)
        self.first_BPD: list[Tensor] = []
        attention = block.get_submodule("attn")
        self.head_dim = cast(DynamicAttention, attention).head_dim
        block.register_forward_pre_hook(self._see_tokens)
        attention.get_submodule("proj").register_forward_pre_hook(self._see_heads)

    def _see_tokens(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_BPD = inputs[0][:, self.prefix :]
        if (wanted := CLOSER_IMAGES - self.images) > 0:
            self.first_BPD.append(x_BPD[:wanted].double().cpu())
        z_BPD = _normed(x_BPD)
        self.images += len(x_BPD)
        self.tokens_PD = self.tokens_PD + z_BPD.sum(dim=0).double().cpu()
        rows = z_BPD.flatten(0, 1)
        self.moments_DD = self.moments_DD + (rows.T @ rows).double().cpu()

    def _see_heads(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        heads_BTHd = torch.unflatten(inputs[0], 2, (-1, self.head_dim))
        self.norms_H = self.norms_H + heads_BTHd.norm(dim=3).mean(dim=1).sum(dim=0).double().cpu()

    def first_values(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of these stored weights of the block."""
        values: dict[str, Tensor] = {}
        if "attn.linear_gain" in own:
            values["attn.linear_gain"] = self.norms_H / self.images
        gammas = []
        for name in own:
            if name.startswith("reducer.queries_"):
                values[name], gamma = self._queries(int(name.rpartition("_")[2]))
                gammas.append(gamma)
        if gammas:
            values["reducer.gamma"] = torch.full_like(own["reducer.gamma"], sum(gammas) / len(gammas))
        return values

    def _queries(self, wanted: int) -> tuple[Tensor, float]:
        """Queries [M, D] for so many tokens, and the gamma that goes with them."""
        x_BPD = torch.cat(self.first_BPD)
        z_BPD, (P, D) = _normed(x_BPD), self.tokens_PD.shape
        mean_PD = self.tokens_PD / self.images
        center_D = mean_PD.mean(dim=0)
        covariance_DD = self.moments_DD / (self.images * P) - center_D[:, None] * center_D
        ridge = covariance_DD.trace() / D * torch.eye(D, dtype=torch.float64)
        windows_MD = average_tokens((mean_PD - center_D)[None], wanted)[0]
        queries_MD = functional.normalize(torch.linalg.solve(covariance_DD + ridge, windows_MD.T).T, dim=1)
        logits_BMP = queries_MD * D**-0.5 @ z_BPD.mT
        scale_M1 = _scale(logits_BMP, SHARPNESS * math.log(P))[:, None]
        gathered_BMD = (logits_BMP * scale_M1).softmax(dim=-1) @ z_BPD
        gamma = GATHERED * average_tokens(x_BPD, wanted).norm() / gathered_BMD.norm()
        return queries_MD * scale_M1, float(gamma)


def _normed(x: Tensor) -> Tensor:
    """As GLAD's own norm does before it is trained."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _scale(logits_BMP: Tensor, entropy: float) -> Tensor:
    """For every query the factor [M] of its logits at which its weights have this entropy, nats, mean over images."""
    low, high = torch.full_like(logits_BMP[0, :, 0], -8.0), torch.full_like(logits_BMP[0, :, 0], 12.0)
    for _ in range(40):
        middle = (low + high) / 2
        weights = (logits_BMP * middle.exp()[:, None]).softmax(dim=-1)
        is_flat = torch.special.entr(weights).sum(dim=-1).mean(dim=0) > entropy
        low, high = torch.where(is_flat, middle, low), torch.where(is_flat, high, middle)
    return low.exp()
