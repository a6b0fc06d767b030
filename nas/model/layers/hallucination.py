"""Hallucinated heads: attention logits that derive from those of other heads instead of queries and keys.

Shape letters: B batch, T tokens, P prefix tokens, N = T - P patch tokens, R real heads, E derived heads.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import HALLUCINATION, Backbone, LayerChoice
from nas.arch import tiling as chunks
from nas.model.layers.part import FirstValue, is_recorded

INITIAL: dict[str, FirstValue] = {
    "hallucinate.gain": nn.init.ones_,
    "hallucinate.mix": nn.init.zeros_,
    "hallucinate.conv.weight": nn.init.zeros_,
}
"""First values, by the names within an attention module: derived heads start as copies of their parents."""

OF_REAL_HEADS = re.compile(r"\bhallucinate_\d+\.")
"""What `stored_name` makes of `hallucinate.`."""


class Hallucinate(nn.Module):
    """Logits of all heads from those of the real ones.

    The parent of derived head j is real head j mod R. With S the logits of the real heads, those of j are

    - `copy`: gain[j] S[parent];
    - `mix`: S[parent] + sum_g mix[j, g] S[g];
    - `mix_conv`: the same plus a depth-wise 3x3 of S[parent] over the (query, key) plane of the patch tokens,
      zero outside of it; rows and columns of prefix tokens get the mix only.

    Shapes: logits [B, R, T, T] -> [B, R + E, T, T], the real heads first and unchanged; E may be more than R.

    In a supernet there is a set of these weights for every number of real heads, as derived head j is head R + j of the
    layer, whose values are those of another head for every R: see `stored_name`.

    Source: hMHSA (arXiv 2306.10875), of which the abstract fixes only that half of the maps are made from the others by
    cheap operations; the operators and their place before the softmax are METHODS 1.2.
    """

    def __init__(self, real: int, derived: int, variant: str, num_prefix_tokens: int) -> None:
        super().__init__()
        self.real, self.derived, self.prefix = real, derived, num_prefix_tokens
        self.gain: nn.Parameter | None = None
        self.mix: nn.Parameter | None = None
        self.conv: nn.Conv2d | None = None
        if not HALLUCINATION[variant].mixes:
            self.gain = nn.Parameter(INITIAL["hallucinate.gain"](torch.empty(derived)))
            return
        self.mix = nn.Parameter(INITIAL["hallucinate.mix"](torch.empty(derived, real)))
        if HALLUCINATION[variant].convolves:
            self.conv = nn.Conv2d(derived, derived, 3, padding=1, groups=derived, bias=False)
            INITIAL["hallucinate.conv.weight"](self.conv.weight)

    def forward(self, logits_BRTT: Tensor) -> Tensor:
        """Append the derived heads."""
        return torch.cat([logits_BRTT, self._derive(logits_BRTT)], dim=1)

    def scaled(self, q_BRTd: Tensor) -> Tensor:
        """Queries [B, E, T, d] whose products with the parents' keys are the `copy` logits."""
        assert self.gain is not None, "only copies are scaled"
        return self.parents(q_BRTd) * self.gain[:, None, None].to(q_BRTd.dtype)

    def parents(self, x: Tensor, dim: int = 1) -> Tensor:
        """Along a dimension of R entries, the parent's of every derived head: E entries."""
        if self.derived > self.real:
            x = torch.cat([x] * -(-self.derived // self.real), dim)
        return x.narrow(dim, 0, self.derived)

    def _derive(self, logits_BRTT: Tensor) -> Tensor:
        if self.mix is None:
            return self.scaled(logits_BRTT)
        B, _, T, K = logits_BRTT.shape
        identity_RR = torch.eye(self.real, dtype=self.mix.dtype, device=self.mix.device)
        weights_ER = (self.parents(identity_RR, dim=0) + self.mix).to(logits_BRTT.dtype)
        mixed_BES = torch.bmm(weights_ER.expand(B, -1, -1), logits_BRTT.flatten(2))
        derived_BETT: Tensor = torch.unflatten(mixed_BES, 2, (T, K))
        if self.conv is None:
            return derived_BETT
        prefix = self.prefix
        patches_BENN = self.parents(logits_BRTT)[:, :, prefix:, prefix:]
        if eager_cpu_inference(logits_BRTT):
            derived_BETT[:, :, prefix:, prefix:] += _depthwise(patches_BENN, self.conv.weight)
            return derived_BETT
        return derived_BETT + functional.pad(self.conv(patches_BENN), (prefix, 0, prefix, 0))


def build_hallucinate(layer: LayerChoice, backbone: Backbone) -> Hallucinate | None:
    """What derives the heads of a layer; None where none is derived."""
    if layer.hallucination is None:
        return None
    heads = layer.num_real, layer.num_hallucinated
    return Hallucinate(*heads, layer.hallucination, backbone.num_prefix_tokens)


def stored_name(name: str, hallucinate: Hallucinate | None) -> str:
    """The store's name for a weight of an attention that derives heads: one set for every number of real heads."""
    return name if hallucinate is None else name.replace("hallucinate.", f"hallucinate_{hallucinate.real}.", 1)


def images_at_once(v_BHKd: Tensor, queries: int, hallucinate: Hallucinate | None = None) -> int | None:
    """Images whose maps are made together: those of `CHUNK_BYTES` where a CPU only infers; None: all."""
    if not eager_cpu_inference(v_BHKd):
        return None
    _, H, K, _ = v_BHKd.shape
    convolved = 0 if hallucinate is None or hallucinate.conv is None else hallucinate.derived
    return chunks.images_of_maps(H, queries * K, v_BHKd.element_size(), convolved)


def eager_cpu_inference(x: Tensor) -> bool:
    """Whether nothing is recorded or traced and a CPU computes, so that an order kind to its caches pays."""
    return not torch.is_grad_enabled() and not is_recorded(x) and x.device.type == "cpu"


def _depthwise(x_BENN: Tensor, weight_E133: Tensor) -> Tensor:
    """The 3x3, with images, and blocks of their rows, as channels: a CPU's kernel is slow with a few."""
    B, E, N, M = x_BENN.shape
    blocks = chunks.row_blocks(B * E, N)
    channels, rows = B * E * blocks, N // blocks
    weight_C133 = weight_E133[:, None].expand(B, E, blocks, 1, 3, 3).reshape(channels, 1, 3, 3)
    if blocks == 1:
        x_1CNN = x_BENN.reshape(1, channels, N, M)
        return functional.conv2d(x_1CNN, weight_C133, padding=1, groups=channels).view(B, E, N, M)
    with_halo = functional.pad(x_BENN, (0, 0, 1, 1)).unfold(2, rows + 2, rows).transpose(3, 4)
    x_1CRN = with_halo.reshape(1, channels, rows + 2, M)
    return functional.conv2d(x_1CRN, weight_C133, padding=(0, 1), groups=channels).view(B, E, N, M)
