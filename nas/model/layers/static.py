"""Static attention: learned maps, the same for every image.

Shape letters: B batch, T tokens, P prefix tokens, N patch tokens, D channels, d channels per head, H heads,
C = H * d channels of all heads, E = B * d.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.arch import Backbone, LayerChoice, LayerContext
from nas.base import ArchitectureError
from nas.model.key_reduction import KEYS_INITIAL, build_key_reduction, project, stored_keys_name
from nas.model.layers.dynamic import attend
from nas.model.layers.maps import Guidance, Provided, mix_values, slice_qkv, slice_values, to_heads
from nas.model.layers.part import FirstValue, Frame, Part, Stored, is_recorded
from nas.model.transport import resize_map

FLOOR = 1e-6
"""Added to a mean map before its logarithm, for entries that are zero."""


class _CachedMaps(NamedTuple):
    """Maps after the softmax, and what they were made from."""

    key: tuple[object, ...]  # where the parameter lies, what it looks like and how often it was written; precisions
    parameter: Tensor  # shares the parameter's memory, so that no other tensor can come to lie there
    maps: Tensor  # [H, T, T]


class StaticAttention(Part):
    """Attention with learned maps: one T x T matrix per head, rows softmaxed.

    A map belongs to one token count; the store keeps one per count under `static_map_<patch tokens>`. In evaluation
    without gradients the softmaxed maps are kept until the parameter changes. Writes that PyTorch does not count
    (through `.data` or NumPy) are noticed only after the next `train()`.

    Guided training: a module built with `guided` has the queries and keys of the dynamic attention that it replaces.
    With `guidance.static` = lambda = 1 it is that dynamic attention, and the static maps have no part. Between 1 and 0
    it applies lambda * dynamic maps + (1 - lambda) * static maps.

    Shapes: x [B, T, D] -> ([B, T, D], None).

    Source: DGSSA (arXiv 2310.07664). Differs: the paper leaves the parametrisation and the guidance open; they are
    those of METHODS 2.2, without its divergence from the dynamic maps: it held static maps at the mean of the dynamic
    ones, which is where they start, and networks were not better for it (docs/decisions.md).
    """

    INITIAL: ClassVar[Mapping[str, FirstValue]] = {
        "static_map": partial(nn.init.trunc_normal_, std=0.02),
        **KEYS_INITIAL,
    }
    NO_DECAY = frozenset({"static_map"})

    def __init__(
        self, embed_dim: int, layer: LayerChoice, _context: LayerContext, backbone: Backbone, *, guided: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.guided = layer.num_heads, backbone.head_dim, guided
        channels, tokens = self.heads * self.head_dim, layer.num_tokens + backbone.num_prefix_tokens
        if guided:
            self.qkv = nn.Linear(embed_dim, 3 * channels)
        else:
            self.v = nn.Linear(embed_dim, channels)
        self.proj = nn.Linear(channels, embed_dim)
        self.keys = build_key_reduction(embed_dim, layer.num_tokens, backbone)
        keys = tokens if self.keys is None else tokens // self.keys.stride**2
        self.static_map = nn.Parameter(self.INITIAL["static_map"](torch.empty(self.heads, tokens, keys)))
        self.num_tokens, self.prefix = layer.num_tokens, backbone.num_prefix_tokens
        self._cached: _CachedMaps | None = None

    def stored_name(self, name: str) -> str:
        """A map fits one token count, and so does what reduces keys."""
        return f"static_map_{self.num_tokens}" if name == "static_map" else stored_keys_name(name, self.keys)

    def slice_from(self, stored: Stored) -> dict[str, Tensor]:
        """Whole heads, the first ones."""
        columns, channels = self.proj.weight.shape
        if self.guided:
            return self.prefixes(stored, but="qkv.") | slice_qkv(stored, channels, channels, columns)
        return self.prefixes(stored, but="v.") | slice_values(stored, channels, columns)

    def forward(
        self, x: Tensor, provided: Provided | None, guidance: Guidance | None = None, frame: Frame | None = None
    ) -> tuple[Tensor, Provided | None]:
        """Mix the values by the learned maps, in guided training also by the dynamic ones."""
        del provided
        if self.guided and guidance is not None and guidance.static > 0:
            return self._attend_guided(x, guidance, frame), None
        return self._attend(x, frame), None

    def train(self, mode: bool = True) -> "StaticAttention":
        """Set the mode; training drops the cached maps."""
        if mode:
            self._cached = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        # A copy's cache would not keep the memory that its key names.
        return {**self.__dict__, "_cached": None}

    def _attend(self, x: Tensor, frame: Frame | None) -> Tensor:
        # The maps are the same for all images, so these lie side by side in one matrix per head: H products of
        # [T, T] and [T, B * d], and no copy of the maps per image.
        B, T, _ = x.shape
        H, d = self.heads, self.head_dim
        if frame is not None and frame.mask is not None:
            masked_BHTT = (self._maps(x, frame).log() + frame.mask).softmax(dim=-1)
            attended: Tensor = self.proj(mix_values(masked_BHTT, to_heads(self._values(x, frame), d)).flatten(2))
            return attended
        mixed_HKE = self._values(x, frame).view(B, -1, H, d).permute(2, 1, 0, 3).reshape(H, -1, B * d)
        mixed_HTE = torch.bmm(self._maps(mixed_HKE, frame), mixed_HKE)
        del mixed_HKE
        y: Tensor = self.proj(mixed_HTE.view(H, T, B, d).permute(2, 1, 0, 3).contiguous().view(B, T, H * d))
        return y

    def _values(self, x: Tensor, frame: Frame | None) -> Tensor:
        if self.keys is not None:
            x = self.keys(x, frame)
        if not self.guided:
            values: Tensor = self.v(x)
            return values
        skipped = 2 * self.proj.in_features
        return functional.linear(x, self.qkv.weight[skipped:], self.qkv.bias[skipped:])

    def _maps(self, like: Tensor, frame: Frame | None) -> Tensor:
        """The softmaxed maps, in another tensor's precision.

        From the cache only of a parameter of its own: skeletons of a supernet have none.

        Raises:
            ArchitectureError: Images of another size, and reduced keys.
        """
        weight, dtype = self.static_map, like.dtype
        if frame is not None and frame.held != frame.after:
            if self.keys is not None:
                raise ArchitectureError(
                    "static maps of reduced keys fit images of one size", hint="another network, or images of that size"
                )
            return resize_map(weight.softmax(dim=-1), frame.held, frame.after, self.prefix).to(dtype)
        if (
            is_recorded(like)
            or self.training
            or torch.is_grad_enabled()
            or not isinstance(weight, nn.Parameter)
            or weight.is_inference()  # then its writes are not counted
            or weight.is_meta
        ):
            return weight.softmax(dim=-1).to(dtype)
        look = weight.data_ptr(), weight._version, weight.shape, weight.stride(), weight.dtype
        key = (*look, dtype, torch.is_autocast_enabled(weight.device.type))
        if self._cached is None or self._cached.key != key:
            self._cached = _CachedMaps(key, weight.detach(), weight.softmax(dim=-1).to(dtype))
        return self._cached.maps

    def _attend_guided(self, x: Tensor, guidance: Guidance, frame: Frame | None) -> Tensor:
        rows = [self.heads * self.head_dim] * 3
        q, k, v = (to_heads(part, self.head_dim) for part in project(self.qkv, x, self.keys, rows, frame))
        y: Tensor
        if guidance.static >= 1:
            y = self.proj(attend(q, k, v, training=self.training).flatten(2))
            return y
        dynamic_BHTT = (q * self.head_dim**-0.5 @ k.transpose(2, 3)).softmax(dim=-1)
        static_HTT = self.static_map.softmax(dim=-1).to(dynamic_BHTT.dtype)
        maps_BHTT = torch.lerp(static_HTT, dynamic_BHTT, guidance.static).to(v.dtype)
        y = self.proj((maps_BHTT @ v).transpose(1, 2).flatten(2))
        return y


build = StaticAttention


def log_mean_map(mean: Tensor) -> Tensor:
    """The parameter [H, T, T] whose softmax is the mean of dynamic maps, up to 1e-6 an entry.

    That mean minimises the mean KL divergence from the maps of the images (METHODS 2.2).
    """
    return (mean + FLOOR).log()
