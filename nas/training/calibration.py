"""What a trained plain ViT does on images: mean maps, moments, similarities, and how redundant each layer is.

The supernet's operators take their first values from it (METHODS 1.2, 1.3, 2.2, 5.9), and `rank-layers` shows
its redundancy figures.

Shape letters: B batch, T tokens, D channels, F hidden channels, H heads, d channels per head, r rank.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from nas.architecture import Backbone, is_square
from nas.errors import DataError
from nas.model.attention import DynamicAttention
from nas.model.feed_forward import activation_aware_factors
from nas.model.maps import Provided
from nas.model.static_attention import log_mean_map, transport_map
from nas.model.subnet import Block, Subnet

RANK_IMAGES = 64
"""Images whose maps are decomposed for the effective rank: that takes longer than computing them."""
RANK_ENERGY = 0.99
"""Share of a map's squared singular values that its effective rank holds (METHODS 2.3)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerCalibration:
    """One layer of a plain ViT, mean over images. Tensors are float64 and on the CPU.

    Attributes:
        mean_map: E[A], [H, T, T].
        similarity: Cosine of two heads' maps of one image, [H, H].
        similarity_to_previous: Cosine of head h's map and that of head h in the layer before, mean over heads;
            None in the first layer and where the numbers of heads differ.
        dispersion: KL(A || E[A]), mean over heads and rows, nats.
        effective_rank: Singular values that hold 99 % of a map's energy, mean over heads, of the first
            `RANK_IMAGES` images.
        value_norm: ||A_h V_h|| of a token, [H].
        output_norm: ||A_h V_h W_o,h|| of a token, [H].
        second_moment: h h^T of a token's hidden activations, [F, F].
    """

    mean_map: Tensor
    similarity: Tensor
    similarity_to_previous: float | None
    dispersion: float
    effective_rank: float
    value_norm: Tensor
    output_norm: Tensor
    second_moment: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """A plain ViT on images.

    Attributes:
        layers: One a layer.
        embed_dim: Its channels.
        num_images: So many.
    """

    layers: tuple[LayerCalibration, ...]
    embed_dim: int
    num_images: int


@torch.inference_mode()
def calibrate(model: Subnet, batches: Iterable[Tensor]) -> Calibration:
    """Watch a plain ViT classify images. One pass; the model stays as it is.

    Args:
        model: Plain dynamic attention on all patches in every layer, such as `plain_subnet` gives.
        batches: Normalised images [B, C, S, S]; some 1,000 in all, 32 to 64 at a time.

    Raises:
        DataError: No images.
    """
    model = copy.deepcopy(model).eval()
    layers: list[_LayerWatch] = []
    for block in model.blocks:
        layers.append(_LayerWatch(cast(Block, block), layers[-1] if layers else None))
    num_images = 0
    for images in batches:
        model(images.to(model.pos_embed.device))
        num_images += len(images)
    if not num_images:
        raise DataError("a calibration needs at least one image", hint="give training images")
    return Calibration(
        layers=tuple(layer.result(num_images) for layer in layers),
        embed_dim=model.embed_dim,
        num_images=num_images,
    )


class _LayerWatch:
    """Sums over images of what one layer computes: float64, on the device that computes."""

    def __init__(self, block: Block, previous: "_LayerWatch | None") -> None:
        attention, is_plain = block.attn, block.reducer is None and isinstance(block.mlp, Mlp)
        if not isinstance(attention, DynamicAttention) or attention.hallucinated or not is_plain:
            raise ValueError("only a plain ViT can be calibrated")
        attention.exports_maps = True
        self.totals: dict[str, Tensor] = {}
        self.previous, self.num_heads, self.num_ranked = previous, attention.heads, 0
        self.unit_maps: Tensor | None = None  # of the batch under way, until the next layer has seen them
        attention.register_forward_hook(self._see_maps)
        attention.proj.register_forward_pre_hook(self._see_values)
        block.mlp.get_submodule("fc2").register_forward_pre_hook(self._see_hidden)

    def _add(self, name: str, values_B: Tensor) -> None:
        """Add one value for each image of a batch, of any shape."""
        total = values_B.sum(dim=0, dtype=torch.float64)
        self.totals[name] = self.totals[name] + total if name in self.totals else total

    def _see_values(self, proj: nn.Linear, inputs: tuple[Tensor]) -> None:
        """What the heads gather, A_h V_h side by side, [B, T, H d]."""
        gathered_BTHd = torch.unflatten(inputs[0], 2, (self.num_heads, -1))
        weight_HDd = torch.unflatten(proj.weight, 1, (self.num_heads, -1)).transpose(0, 1)
        squares_BTH = torch.einsum(
            "bthd,hde,bthe->bth", gathered_BTHd, weight_HDd.mT @ weight_HDd, gathered_BTHd
        )
        self._add("value_norm", gathered_BTHd.norm(dim=3).mean(dim=1))
        self._add("output_norm", squares_BTH.clamp_min(0).sqrt().mean(dim=1))

    def _see_hidden(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].flatten(0, 1)
        self._add("second_moment", (rows.T @ rows / inputs[0].shape[1])[None])

    def _see_maps(self, _: nn.Module, __: Any, output: tuple[Tensor, Provided]) -> None:
        maps = output[1].maps
        assert maps is not None, "exports_maps is on"
        self._add("map", maps)
        self._add("negative_entropy", torch.xlogy(maps, maps).sum(dim=3).mean(dim=(1, 2)))
        flat = maps.flatten(2)
        unit = flat / flat.norm(dim=2, keepdim=True)
        self._add("similarity", unit @ unit.mT)
        before = self.previous.unit_maps if self.previous else None
        if before is not None and before.shape == unit.shape:
            self._add("similarity_to_previous", (unit * before).sum(dim=2).mean(dim=1))
        if self.previous:
            self.previous.unit_maps = None
        self.unit_maps = unit
        ranked = maps[: RANK_IMAGES - self.num_ranked]
        if len(ranked):
            self._add("rank", _effective_rank(ranked).mean(dim=1))
            self.num_ranked += len(ranked)

    def result(self, num_images: int) -> LayerCalibration:
        """The means."""
        counts = {"rank": self.num_ranked}
        mean = {name: (total / counts.get(name, num_images)).cpu() for name, total in self.totals.items()}
        before = mean.get("similarity_to_previous")
        of_mean = torch.xlogy(mean["map"], mean["map"]).sum(dim=2).mean()
        return LayerCalibration(
            mean_map=mean["map"],
            similarity=mean["similarity"],
            similarity_to_previous=None if before is None else float(before),
            # E[KL(A || E[A])] = E[sum A log A] - sum E[A] log E[A]: exact in one pass.
            dispersion=max(float(mean["negative_entropy"] - of_mean), 0.0),
            effective_rank=float(mean["rank"]),
            value_norm=mean["value_norm"],
            output_norm=mean["output_norm"],
            second_moment=mean["second_moment"],
        )


def _effective_rank(maps_BHTT: Tensor) -> Tensor:
    """Fewest singular values that hold `RANK_ENERGY` of the sum of all squares, [B, H]."""
    squares = torch.linalg.eigvalsh(maps_BHTT @ maps_BHTT.mT).clamp_min(0).flip(-1)
    held = squares.cumsum(dim=-1) / squares.sum(dim=-1, keepdim=True)
    fewer: Tensor = (held < RANK_ENERGY).sum(dim=-1)
    return fewer.double() + 1


def redundancy_rows(calibration: Calibration) -> list[dict[str, float | int | None]]:
    """How redundant the attention of each layer is, one row a layer.

    - `layer`: From 0.
    - `dispersion_nats`: How far an image's maps are from the mean maps, E[KL(A || E[A])]. Where it is small, static
      maps are safe.
    - `similarity_to_previous`: Cosine, 0 to 1, to the same heads of the layer before. Where it is high, sharing is
      safe. None in the first layer.
    - `similarity_of_heads`: Cosine, 0 to 1, of a head and the one most like it in the layer, mean over heads. Where
      it is high, hallucination is safe. None with one head.
    - `effective_rank`: Singular values that hold 99 % of a map's energy. Where it is far below `tokens`, tokens can
      be reduced.
    - `tokens`: Rows of a map, class token included.

    Source: METHODS 2.2 (dispersion) and 2.3 (effective rank); PSViT shares where maps correlate (arXiv 2108.03428),
    hMHSA derives heads that are similar (arXiv 2306.10875).
    """
    rows: list[dict[str, float | int | None]] = []
    for number, layer in enumerate(calibration.layers):
        others = layer.similarity.clone().fill_diagonal_(-1.0)
        rows.append(
            {
                "layer": number,
                "dispersion_nats": layer.dispersion,
                "similarity_to_previous": layer.similarity_to_previous,
                "similarity_of_heads": float(others.amax(dim=1).mean()) if len(others) > 1 else None,
                "effective_rank": layer.effective_rank,
                "tokens": layer.mean_map.shape[1],
            }
        )
    return rows


@torch.no_grad()
def start_operators(stored: Mapping[str, Tensor], calibration: Calibration, backbone: Backbone) -> list[str]:
    """Give the weights that a plain ViT does not have values that change its function least, in place.

    - `attn.static_map_<N>`: log of the mean maps, transported to the coarser grid where N is not all patches
      (METHODS 2.2, 2.5). Counts that are not a square grid keep their values.
    - `attn.linear_gain`: E||A_h V_h||, as linear attention's heads are unit vectors (METHODS 5.9).
    - `mlp.down.weight`, `mlp.up.weight`: the factors of the stored `mlp.fc2.weight` that change its outputs least,
      at the greatest stored rank; further branches become zero (METHODS 1.3).

    Where the calibrated network is smaller than what is stored, the first heads and channels are filled.

    Args:
        stored: The supernet's weights by name, `dict(supernet.named_parameters())`, with the calibrated network's
            already among them.
        calibration: Of that network.
        backbone: Of both.

    Returns:
        Names of what was filled.
    """
    filled: list[str] = []
    for i, layer in enumerate(calibration.layers):
        prefix = f"blocks.{i}."
        block = {
            name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)
        }
        for name, value in _first_values(block, layer, calibration.embed_dim, backbone).items():
            block[name][tuple(map(slice, value.shape))].copy_(value)
            filled.append(prefix + name)
    return filled


def _first_values(
    block: Mapping[str, Tensor], layer: LayerCalibration, embed_dim: int, backbone: Backbone
) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    patches = backbone.num_patches
    for name in block:
        if name.startswith("attn.static_map_") and is_square(tokens := int(name.rpartition("_")[2])):
            mean = layer.mean_map
            if tokens != patches:
                sides = math.isqrt(patches), math.isqrt(tokens)
                mean = transport_map(mean, *sides, backbone.num_prefix_tokens)
            values[name] = log_mean_map(mean)
        elif name == "attn.linear_gain":
            values[name] = layer.value_norm
        elif name.startswith(("mlp.down.weight_", "mlp.up.weight_")):
            values[name] = torch.zeros_like(block[name])
    if "mlp.down.weight" in block:
        weight = block["mlp.fc2.weight"][:embed_dim, : len(layer.second_moment)]
        rank = min(len(block["mlp.down.weight"]), embed_dim)
        down, up = activation_aware_factors(weight, rank, layer.second_moment.to(weight.device))
        values |= {"mlp.down.weight": down, "mlp.up.weight": up}
    return values
