"""Several subnets of one supernet in one pass: what they have in common from the first layer on is computed once.

The logits are those of the subnets one by one, bit for bit: the same operations on the same images with the same
weights, of which only repetitions are left out.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas.arch import Architecture, Backbone, LayerChoice, LayerContext, cost
from nas.model.block import Block
from nas.model.families.vit import Subnet
from nas.model.layers.maps import Provided
from nas.model.supernet import Supernet

MOST_BYTES = 2**28  # weights of one tree at most, unless one subnet has more
MOST_SUBNETS = 512  # of one tree: their logits are held together
MOST_HALVES = 4096  # kept for the next trees, some 40 kB each

State = tuple[Tensor, Provided | None]
"""Tokens [B, T, D], and what the next layer may share."""

Run = Callable[[Tensor, Provided | None], State]


@dataclass(eq=False, slots=True)
class _Node:
    """Half a layer behind one beginning; the root: what comes before the layers."""

    run: Run
    subnets: set[int] = field(default_factory=set)  # that pass through it
    ends: set[int] = field(default_factory=set)  # whose last half layer it is
    following: "dict[Hashable, _Node]" = field(default_factory=dict)


class SubnetParts:
    """Halves of layers, and what is before and behind them, with the weights that a supernet has now, on a device.

    The halves are the attention, with what reduces tokens before, and the feed-forward. They are kept for the next
    trees. Weights are views of the supernet where they are slices on its device, so nothing may write them; for bf16,
    which stands for autocast, they are converted once and not for every batch.
    """

    def __init__(self, supernet: Supernet, device: torch.device, precision: str) -> None:
        self.supernet = supernet
        self._device, self._is_bf16 = device, precision == "bf16"
        self._halves: OrderedDict[Hashable, tuple[Run, int]] = OrderedDict()
        self._ends: dict[Hashable, Subnet] = {}

    def ends(self, architecture: Architecture) -> Subnet:
        """A subnet of an architecture's stem, first and last width and depth without layers."""
        key = (architecture.stem, architecture.embed_dim, architecture.widths[-1], architecture.depth)
        if key not in self._ends:
            with torch.device("meta"):
                subnet = Subnet(self.supernet.space.backbone, architecture, build_block=_no_block)
            self._lend(subnet)
            self._ends[key] = subnet
        return self._ends[key]

    def half(self, key: Hashable, i: int, architecture: Architecture, context: LayerContext) -> Run:
        """The half of layer `i` that has the key."""
        if key not in self._halves:
            width, layer = architecture.widths[i], architecture.layers[i]
            with torch.device("meta"):
                block = Block(width, layer, context, self.supernet.space.backbone)
                layers = nn.ModuleDict({"blocks": nn.ModuleDict({str(i): block})})  # names as in a subnet
            self._lend(layers)
            attention, feed_forward = _keys(i, width, layer, context)
            size = _own_bytes(block)
            self._halves.setdefault(attention, (block.attend, size))
            self._halves.setdefault(feed_forward, (partial(_feed, block), size))
        self._halves.move_to_end(key)
        return self._halves[key][0]

    def trim(self, most: int = MOST_BYTES) -> None:
        """Forget the halves not used for longest, of whose weights more bytes are held than so many."""
        held = sum(size for _, size in self._halves.values())
        while self._halves and (held > most or len(self._halves) > MOST_HALVES):
            held -= self._halves.popitem(last=False)[1][1]

    def _lend(self, module: nn.Module) -> None:
        self.supernet.lend(module)
        module.eval().requires_grad_(False).to(self._device)
        if self._is_bf16:
            for part in module.modules():
                if isinstance(part, nn.Linear):
                    part.to(torch.bfloat16)


class SubnetTree:
    """Subnets joined where they begin alike: the same width and stem and the same first halves of layers.

    They are told apart by numbers. See `subtrees` for how many are good for a tree.
    """

    def __init__(self, parts: SubnetParts, architectures: Mapping[int, Architecture]) -> None:
        self._roots: dict[tuple[int, str], _Node] = {}  # by width and stem
        self._ends: dict[int, Subnet] = {}  # by number
        backbone = parts.supernet.space.backbone
        for number, architecture in architectures.items():
            ends = self._ends[number] = parts.ends(architecture)
            root = (architecture.embed_dim, architecture.stem)
            node = self._roots.setdefault(root, _Node(partial(_embed, ends)))
            node.subnets.add(number)
            for i, (layer, width) in enumerate(zip(architecture.layers, architecture.widths, strict=True)):
                context = architecture.context(i, backbone)
                for key in _keys(i, width, layer, context):
                    if key not in node.following:
                        node.following[key] = _Node(parts.half(key, i, architecture, context))
                    node = node.following[key]
                    node.subnets.add(number)
            node.ends.add(number)
        parts.trim()

    def answers(
        self, images: Tensor, wanted: Collection[int]
    ) -> tuple[dict[int, tuple[Tensor, Tensor]], dict[int, Exception]]:
        """Features [B, D] and logits [B, K] of the wanted subnets by number; second, where there are none, the error.

        Images [B, C, S, S] are normalised. Tokens of the batch are held only where beginnings part.
        """
        left, failed, found = set(wanted), dict[int, Exception](), dict[int, tuple[Tensor, Tensor]]()
        for root in self._roots.values():
            pending: list[tuple[_Node, Tensor, Provided | None]] = [(root, images, None)]
            while pending:
                node, x, provided = pending.pop()
                if left.isdisjoint(node.subnets):
                    continue
                try:
                    x, provided = node.run(x, provided)
                    if numbers := left & node.ends:
                        ends = self._ends[min(numbers)]
                        features = ends.forward_head(ends.norm(x), pre_logits=True)
                        found |= dict.fromkeys(numbers, (features, ends.head(features)))
                except Exception as error:  # noqa: BLE001 - whatever a layer does, the others go on
                    # Without its traceback, whose frames would keep tokens alive.
                    failed |= dict.fromkeys(left & node.subnets, error.with_traceback(None))
                    left -= node.subnets
                pending += [(child, x, provided) for child in node.following.values()]
        return found, failed


def _embed(ends: Subnet, images: Tensor, _: Provided | None) -> State:
    return ends.embed(images), None


def _no_block(*_: Any, **__: Any) -> Block:
    return cast(Block, nn.Identity())


def _feed(block: Block, x: Tensor, provided: Provided | None) -> State:
    return block.feed(x), provided


def _own_bytes(module: nn.Module) -> int:
    """Bytes of the parameters that are no views of a store."""
    return sum(p.nbytes for p in module.parameters() if p.untyped_storage().nbytes() == p.nbytes)


def _keys(i: int, width: int, layer: LayerChoice, context: LayerContext) -> tuple[Hashable, Hashable]:
    """What tells the two halves of a layer from all others."""
    attention = replace(layer, mlp_ratio=1.0, ffn_rank=1.0, ffn_conv=False)
    return (i, width, attention, context), (i, width, layer.mlp_ratio, layer.ffn_rank, layer.ffn_conv)


def subtrees(architectures: Sequence[Architecture], backbone: Backbone) -> list[list[int]]:
    """The numbers of the architectures in parts for one tree each: neighbours in sorted order.

    The halves of a part have at most `MOST_BYTES` of weights, or are one subnet's, and it has at most `MOST_SUBNETS`.
    """
    values = [_values(architecture, backbone) for architecture in architectures]
    parts: list[list[int]] = []
    held: dict[Hashable, int] = {}
    for i in sorted(range(len(values)), key=lambda i: [repr(key) for key in values[i]]):
        if not parts or len(parts[-1]) == MOST_SUBNETS or 4 * sum((held | values[i]).values()) > MOST_BYTES:
            parts.append([])
            held = {}
        parts[-1].append(i)
        held |= values[i]
    return parts


def _values(architecture: Architecture, backbone: Backbone) -> dict[Hashable, int]:
    """How many weights each half of the layers has, in order."""
    found = dict[Hashable, int]()
    for i, (layer, width) in enumerate(zip(architecture.layers, architecture.widths, strict=True)):
        context = architecture.context(i, backbone)
        attention, feed_forward = _keys(i, width, layer, context)
        pair = (layer.mlp_ratio, layer.ffn_rank)
        found[attention] = cost.token_macs_params(layer, context, width, backbone)[1]
        sizes = (*pair, layer.num_tokens, width, layer.ffn_conv)
        found[feed_forward] = cost.feed_forward_macs_params(*sizes, backbone)[1]
    return found
