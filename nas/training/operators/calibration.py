"""What a trained plain ViT does on images: mean maps, moments, similarities, and how redundant each layer is.

The supernet's operators take their first values from it (METHODS 1.2, 1.3, 2.2), and `rank-layers` shows
its redundancy figures.

Shape letters: B batch, T tokens, D channels, F hidden channels, H heads, d channels per head, r rank.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Backbone
from nas.base import DataError
from nas.data import ImageSet
from nas.model import Block, DynamicAttention, Provided, Subnet, activation_aware_factors
from nas.training.operators.static_maps import set_static_maps

CALIBRATION_IMAGES = 1000
BATCH = 32
CLOSER_IMAGES = 64
"""First images that are looked at closer, for the effective rank and for what one static layer changes: both take
longer than the network itself."""
RANK_ENERGY = 0.99
"""Share of a map's squared singular values that its effective rank holds (METHODS 2.3)."""


def first_batches(images: ImageSet, device: torch.device, most: int = CALIBRATION_IMAGES) -> Iterator[Tensor]:
    """The first images without augmentation, `most` at most, normalised, in batches [B, C, S, S] on the device."""
    count = min(most, len(images))
    for start in range(0, count, BATCH):
        yield images.normalized(slice(start, min(start + BATCH, count))).to(device)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerCalibration:
    """One layer of a plain ViT, mean over images. Tensors are float64 and on the CPU."""

    mean_map: Tensor  # E[A], [H, T, T]
    similarity: Tensor  # cosine of two heads' maps of one image, [H, H]
    # cosine of head h's map and that of head h in the layer before, mean over heads; None in the first layer and where
    # the numbers of heads differ
    similarity_to_previous: float | None
    dispersion: float  # KL(A || E[A]), mean over heads and rows, nats
    # singular values that hold 99 % of a map's energy, mean over heads, of the first `CLOSER_IMAGES` images
    effective_rank: float
    # KL(p || q) of the network's predictions p and those q with the mean maps in this layer, mean over the first
    # `CLOSER_IMAGES` images, nats; None without a classifier
    static_change: float | None
    output_norm: Tensor  # ||A_h V_h W_o,h|| of a token, less its mean over channels, [H]
    # ||(A_g - A_h) V_h W_o,h||^2 of a token, [H, H] with g the row: what the layer's output loses if head h takes the
    # map of head g
    copy_error: Tensor
    second_moment: Tensor  # h h^T of a token's hidden activations, [F, F]
    gathered_moment: Tensor  # the same of what its heads gathered, A_h V_h one after the other, [H d, H d]


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """A plain ViT on images."""

    layers: tuple[LayerCalibration, ...]  # one a layer
    # what is read of each direction of the residual stream, [D, D] on the CPU: over all layer norms, the second moment
    # of a token that they have normalised, as a share, times the sum of squares of gains and weights that read it
    stream: Tensor
    embed_dim: int  # its channels
    num_images: int  # so many


@torch.inference_mode()
def calibrate(model: Subnet, batches: Iterable[Tensor]) -> Calibration:
    """Watch a plain ViT, such as `plain_subnet` gives, classify images. One pass; the model stays as it is.

    The batches are normalised images [B, C, S, S]: some 1,000 in all, 32 to 64 at a time.

    Raises:
        DataError: No images.
    """
    watched = copy.deepcopy(model).eval()
    layers: list[_LayerWatch] = []
    for block in watched.blocks:
        layers.append(_LayerWatch(cast(Block, block), layers[-1] if layers else None))
    stream = _StreamWatch(watched)
    first: list[Tensor] = []
    num_images = 0
    for images in batches:
        first.append(images[: max(CLOSER_IMAGES - num_images, 0)])
        watched(images.to(next(model.parameters()).device))
        num_images += len(images)
    if not num_images:
        raise DataError("a calibration needs at least one image", hint="give training images")
    means = [layer.means(num_images) for layer in layers]
    changes = _static_changes(model, [mean["mean_map"] for mean in means], torch.cat(first))
    return Calibration(
        layers=tuple(_layer(mean, change) for mean, change in zip(means, changes, strict=True)),
        stream=stream.total(),
        embed_dim=model.embed_dim,
        num_images=num_images,
    )


def _layer(mean: Mapping[str, Tensor], static_change: float | None) -> LayerCalibration:
    tensors = dict(mean)
    before, entropy, rank = tensors.pop("similarity_to_previous", None), tensors.pop("entropy"), tensors.pop("rank")
    entropy_of_mean = torch.special.entr(mean["mean_map"]).sum(dim=2).mean()
    return LayerCalibration(
        **tensors,
        similarity_to_previous=None if before is None else float(before),
        # E[KL(A || E[A])] = entropy of E[A] - E[entropy of A]: exact in one pass.
        dispersion=max(float(entropy_of_mean - entropy), 0.0),
        effective_rank=float(rank),
        static_change=static_change,
    )


def _static_changes(model: Subnet, mean_maps: Sequence[Tensor], images: Tensor) -> list[float | None]:
    """KL of the predictions with the mean maps in one layer from those without, for every layer, nats."""
    if not model.num_classes:
        return [None] * len(mean_maps)
    model = copy.deepcopy(model).eval()
    images = images.to(next(model.parameters()).device)
    predicted = model(images).double().log_softmax(dim=1)
    changes: list[float | None] = []
    for block, mean_HTT in zip(model.blocks, mean_maps, strict=True):
        attention = cast(DynamicAttention, block.attn)
        apply = partial(_apply_maps, mean_HTT.to(images))
        with attention.register_forward_hook(apply):
            changed = model(images).double().log_softmax(dim=1)
        divergence = functional.kl_div(changed, predicted, log_target=True, reduction="batchmean")
        changes.append(max(float(divergence), 0.0))
    return changes


def _apply_maps(
    maps_HTT: Tensor, attention: DynamicAttention, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]
) -> tuple[Tensor, Any]:
    """A forward hook that puts given maps in place of an attention's own."""
    gathered_BHTd = maps_HTT @ _values(attention, attention.qkv(inputs[0]))
    return attention.proj(gathered_BHTd.transpose(1, 2).flatten(2)), output[1]


def _values(attention: DynamicAttention, qkv: Tensor) -> Tensor:
    """[B, H, T, d] of a plain attention's projection."""
    return torch.unflatten(qkv, 2, (3, attention.heads, -1))[:, :, 2].transpose(1, 2)


class _StreamWatch:
    """Second moments of what layer norms normalise: float64, on the device that computes."""

    def __init__(self, model: Subnet) -> None:
        reads: list[tuple[Any, Any]] = [(norm, model.head) for norm in (model.norm, model.fc_norm)]
        reads = [(norm, head) for norm, head in reads if isinstance(norm, nn.LayerNorm)]
        for block in model.blocks:
            reads += [(block.norm1, cast(Block, block).attn.qkv), (block.norm2, cast(Block, block).mlp.fc1)]
        self.moments: list[Tensor] = [torch.zeros(())] * len(reads)
        self.weights: list[float] = []
        for i, (norm, reader) in enumerate(reads):
            norm.register_forward_hook(partial(self._see, i))
            read = reader.weight * norm.weight if isinstance(reader, nn.Linear) else norm.weight
            self.weights.append(float(read.square().sum()))

    def _see(self, number: int, norm: nn.LayerNorm, inputs: tuple[Tensor], _: Tensor) -> None:
        rows = functional.layer_norm(inputs[0], norm.normalized_shape, eps=norm.eps).flatten(0, -2)
        self.moments[number] = self.moments[number] + (rows.T @ rows).double()

    def total(self) -> Tensor:
        """[D, D]; see `Calibration.stream`."""
        parts = [w * moment / moment.trace() for w, moment in zip(self.weights, self.moments, strict=True)]
        return torch.stack(parts).sum(dim=0).cpu()


class _LayerWatch:
    """Sums over images of what one layer computes: float64, on the device that computes."""

    def __init__(self, block: Block, previous: "_LayerWatch | None") -> None:
        attention, is_plain = block.attn, block.reducer is None and isinstance(block.mlp, Mlp)
        if not isinstance(attention, DynamicAttention) or attention.hallucinated or not is_plain:
            raise ValueError("only a plain ViT can be calibrated")
        attention.exports_maps = True
        self.totals: dict[str, Tensor] = {}
        self.previous, self.num_ranked = previous, 0
        self.unit_maps: Tensor | None = None  # of the batch under way, until the next layer has seen them
        self.attention, self.values = attention, torch.empty(0)
        attention.qkv.register_forward_hook(self._see_projection)
        attention.register_forward_hook(self._see_maps)
        block.mlp.get_submodule("fc2").register_forward_pre_hook(partial(self._see_inputs, "second_moment"))
        attention.proj.register_forward_pre_hook(partial(self._see_inputs, "gathered_moment"))

    def _add(self, name: str, values_B: Tensor) -> None:
        """Add one value for each image of a batch, of any shape."""
        total = values_B.sum(dim=0, dtype=torch.float64)
        self.totals[name] = self.totals[name] + total if name in self.totals else total

    def _see_projection(self, _: nn.Module, __: Any, qkv: Tensor) -> None:
        self.values = _values(self.attention, qkv)

    def _see_inputs(self, name: str, _: nn.Module, inputs: tuple[Tensor]) -> None:
        rows = inputs[0].flatten(0, 1)
        self._add(name, (rows.T @ rows / inputs[0].shape[1])[None])

    def _see_maps(self, _: nn.Module, __: Any, output: tuple[Tensor, Provided]) -> None:
        maps = output[1].maps
        assert maps is not None, "exports_maps is on"
        self._add("mean_map", maps)
        self._add("entropy", torch.special.entr(maps).sum(dim=3).mean(dim=(1, 2)))
        self._compare(maps)
        self._add_outputs(maps, self.values)
        ranked = maps[: CLOSER_IMAGES - self.num_ranked]
        if len(ranked):
            self._add("rank", _effective_rank(ranked).mean(dim=1))
            self.num_ranked += len(ranked)

    def _compare(self, maps: Tensor) -> None:
        """Add cosines between heads, and to the layer before."""
        flat = maps.flatten(2)
        unit = flat / flat.norm(dim=2, keepdim=True)
        self._add("similarity", unit @ unit.mT)
        if self.previous is not None:
            before, self.previous.unit_maps = self.previous.unit_maps, None
            if before is not None and before.shape == unit.shape:
                self._add("similarity_to_previous", (unit * before).sum(dim=2).mean(dim=1))
        self.unit_maps = unit

    def _add_outputs(self, maps: Tensor, values_BHTd: Tensor) -> None:
        """Add the sizes of what the heads add to the stream, and of errors of copied maps."""
        weight = self.attention.proj.weight - self.attention.proj.weight.mean(dim=0)  # layer norms see no more
        weight_HDd = torch.unflatten(weight, 1, (self.attention.heads, -1)).transpose(0, 1)
        gram_Hdd = weight_HDd.mT @ weight_HDd

        def squares(gathered_BHTd: Tensor) -> Tensor:
            """||y W_o,h||^2 of every token, [B, H, T]."""
            return ((gathered_BHTd @ gram_Hdd) * gathered_BHTd).sum(dim=3).clamp_min(0)

        own_BHTd = maps @ values_BHTd
        self._add("output_norm", squares(own_BHTd).sqrt().mean(dim=2))
        errors = [squares(one @ values_BHTd - own_BHTd).mean(dim=2) for one in torch.split(maps, 1, dim=1)]
        self._add("copy_error", torch.stack(errors, dim=1))

    def means(self, num_images: int) -> dict[str, Tensor]:
        """Means over the images, on the CPU."""
        counts = {"rank": self.num_ranked}
        return {name: (total / counts.get(name, num_images)).cpu() for name, total in self.totals.items()}


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
      maps can come near them.
    - `static_change_nats`: How far the network's predictions move if this layer alone takes its mean maps, before any
      training. Where it is small, static maps are safe. None without a classifier.
    - `similarity_to_previous`: Cosine, 0 to 1, to the same heads of the layer before. Where it is high, sharing is
      safe. None in the first layer.
    - `similarity_of_heads`: Cosine, 0 to 1, of a head and the one most like it in the layer, mean over heads. Where it
      is high, hallucination is safe. None with one head.
    - `effective_rank`: Singular values that hold 99 % of a map's energy. Far below `tokens`, tokens can be reduced.
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
                "static_change_nats": layer.static_change,
                "similarity_to_previous": layer.similarity_to_previous,
                "similarity_of_heads": float(others.amax(dim=1).mean()) if len(others) > 1 else None,
                "effective_rank": layer.effective_rank,
                "tokens": layer.mean_map.shape[1],
            }
        )
    return rows


@torch.no_grad()
def start_operators(stored: Mapping[str, Tensor], calibration: Calibration, backbone: Backbone) -> list[str]:
    """Give weights that a plain ViT does not have values that change its function least, in place; returns their names.

    - `attn.static_map_<N>`: the mean maps (`set_static_maps`).
    - `mlp.down.weight`, `mlp.up.weight`: the factors of the stored `mlp.fc2.weight` that change its outputs least,
      at the greatest stored rank (METHODS 1.3).

    `stored` are a supernet's `named_parameters()`, the calibrated network's already among them; where that is smaller,
    the first heads and channels are filled.
    """
    filled = set_static_maps(stored, {i: layer.mean_map for i, layer in enumerate(calibration.layers)}, backbone)
    for i, layer in enumerate(calibration.layers):
        prefix = f"blocks.{i}."
        block = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
        for name, value in _first_values(block, layer, calibration.embed_dim).items():
            block[name][tuple(map(slice, value.shape))].copy_(value)
            filled.append(prefix + name)
    return filled


def _first_values(block: Mapping[str, Tensor], layer: LayerCalibration, embed_dim: int) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    if "mlp.down.weight" in block:
        weight = block["mlp.fc2.weight"][:embed_dim, : len(layer.second_moment)]
        rank = min(len(block["mlp.down.weight"]), embed_dim)
        down, up = activation_aware_factors(weight, rank, layer.second_moment.to(weight.device))
        values |= {"mlp.down.weight": down, "mlp.up.weight": up}
    return values
