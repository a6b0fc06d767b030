"""`Supernet`: one set of weights for every architecture of a search space, and the rule which slice is whose.

There is no active subnet and no second forward pass: a weightless `Subnet` skeleton runs on slices of the
store (`torch.func.functional_call`), so gradients flow through the views, and what is extracted is what was
searched.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.func import functional_call

from nas.architecture import Architecture, LayerChoice
from nas.errors import ArchitectureError, CheckpointError
from nas.model import attention, pooling
from nas.model.subnet import Block, Subnet
from nas.space import SearchSpace
from nas.space_walk import LayerDomain, attention_choices

INITIAL = attention.INITIAL | pooling.INITIAL
CACHED_SKELETONS = 256  # modules without weights, some 100 kB each


class Supernet(nn.Module):
    """A store of weights at maximal size.

    Weights are entangled as in AutoFormer (arXiv 2107.00651): a subnet's channels are the first ones, its
    heads the first whole heads. Static maps (one per token count), hallucination and pooling weights have
    keys of their own.

    Shapes: images [B, C, S, S] -> logits [B, K].

    Args:
        space: Which architectures there are.
        seed: Of the initial weights.

    Raises:
        ArchitectureError: `forward`, `extract`: the architecture is not in the space.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            plain = _plain_largest(space)
            full = Subnet(space.backbone, plain)
            full.init_weights()
            weights = dict(full.named_parameters())
            for i, domain in enumerate(space.layers):
                for name, shape in _operator_shapes(domain, plain, space).items():
                    operator = _operator(name)
                    assert operator is not None, "only operators have shapes here"
                    first_value = INITIAL[operator]
                    weights[f"blocks.{i}.{name}"] = nn.Parameter(first_value(torch.empty(shape)))
        self._owners = {name: _register(self, name, parameter) for name, parameter in weights.items()}
        self._skeletons: OrderedDict[tuple[Architecture, float], _Skeleton] = OrderedDict()

    def forward(self, images: Tensor, architecture: Architecture, *, drop_path: float = 0.0) -> Tensor:
        """Logits of one architecture."""
        skeleton = self._skeleton(architecture, drop_path)
        sliced = self._sliced(skeleton)
        return functional_call(skeleton.module.train(self.training), sliced, (images,))  # type: ignore[no-any-return]

    def slices(self, architecture: Architecture) -> dict[str, Tensor]:
        """Views of the store that are the parameters of one architecture's `Subnet`, by its names."""
        return self._sliced(self._skeleton(architecture, 0.0))

    def _sliced(self, skeleton: "_Skeleton") -> dict[str, Tensor]:
        stored: dict[str, Tensor] = {
            name: module._parameters[last]  # type: ignore[misc]
            for name, (module, last) in self._owners.items()
        }
        sliced = {name: stored[name][prefix] for name, prefix in skeleton.prefixes.items()}
        for i, block in enumerate(skeleton.module.blocks):
            prefix = f"blocks.{i}.attn."
            local = {name: stored[prefix + name] for name in self._attention_names[i]}
            own = block.attn.slice_from(local)  # type: ignore[union-attr, operator]
            sliced |= {prefix + name: value for name, value in own.items()}
        return sliced

    @cached_property
    def _attention_names(self) -> tuple[tuple[str, ...], ...]:
        """Local names of the stored attention weights, by layer."""
        prefixes = [f"blocks.{i}.attn." for i in range(len(self.space.layers))]
        return tuple(
            tuple(name.removeprefix(prefix) for name in self._owners if name.startswith(prefix))
            for prefix in prefixes
        )

    def extract(self, architecture: Architecture) -> Subnet:
        """A `Subnet` with its own copy of the weights, in evaluation mode."""
        self._check(architecture)
        with torch.device("meta"):
            subnet = Subnet(self.space.backbone, architecture)
        owned = {
            name: value.detach().clone().contiguous() for name, value in self.slices(architecture).items()
        }
        subnet.load_state_dict(owned, assign=True)
        return subnet.requires_grad_(True).eval()

    def load_timm(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Start from a plain timm ViT: every tensor fills the first channels and heads of the stored one.

        Position embeddings of another grid are resampled, and a classifier of another size is left as it is.

        Args:
            weights: A timm `VisionTransformer`'s state dict.

        Returns:
            Names of the stored weights that were not given, such as static maps.

        Raises:
            CheckpointError: A tensor does not fit or is not one of a plain ViT; names them all.
        """
        stored = dict(self.named_parameters())
        given, problems = dict(weights), []
        if "pos_embed" in given and "pos_embed" in stored:
            positions, prefix = given["pos_embed"], self.space.backbone.num_prefix_tokens
            patches = positions.shape[1] - prefix if positions.ndim == 3 else 0
            if patches < 1 or math.isqrt(patches) ** 2 != patches:
                problems.append(
                    f"pos_embed: {tuple(positions.shape)} is not {prefix} class token and a square grid"
                )
                del given["pos_embed"]
            else:
                side = math.isqrt(self.space.backbone.num_patches)
                given["pos_embed"] = resample_abs_pos_embed(
                    positions, new_size=(side, side), num_prefix_tokens=prefix
                )
        classes = self.space.backbone.num_classes
        if "head.weight" in given and len(given["head.weight"]) != classes:
            given = {name: value for name, value in given.items() if not name.startswith("head.")}
        for name, value in given.items():
            if name not in stored:
                problems.append(f"{name}: not a weight of this supernet")
            elif not _fits(name, value.shape, stored[name].shape):
                problems.append(f"{name}: {tuple(value.shape)} does not fit into {tuple(stored[name].shape)}")
        if problems:
            raise CheckpointError(
                "the weights do not fit this search space:\n  " + "\n  ".join(problems),
                hint="patch_size, head_dim, greatest depth, embed_dim and mlp_ratio must match the model's",
            )
        with torch.no_grad():
            for name, value in given.items():
                parts = (3, -1) if ".attn.qkv." in name else (1, -1)
                into, source = torch.unflatten(stored[name], 0, parts), torch.unflatten(value, 0, parts)
                into[tuple(map(slice, source.shape))].copy_(source)
        return [name for name in stored if name not in given]

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimiser does not decay (timm's interface)."""
        return {name for name, _ in self.named_parameters() if "static_map" in name} | {
            "pos_embed",
            "cls_token",
        }

    def _check(self, architecture: Architecture) -> None:
        if reasons := self.space.why_not(architecture):
            raise ArchitectureError(
                f"architecture {architecture.digest} is not in space {self.space.name}: " + "; ".join(reasons)
            )

    def _skeleton(self, architecture: Architecture, drop_path: float) -> "_Skeleton":
        key = (architecture, drop_path)
        if key not in self._skeletons:
            self._check(architecture)
            with torch.device("meta"):
                self._skeletons[key] = _Skeleton(
                    Subnet(self.space.backbone, architecture, drop_path=drop_path)
                )
            if len(self._skeletons) > CACHED_SKELETONS:
                self._skeletons.popitem(last=False)
        self._skeletons.move_to_end(key)
        return self._skeletons[key]


class _Skeleton:
    """A subnet without weights, and which prefix of the stored weight each of its plain parameters is."""

    def __init__(self, module: Subnet) -> None:
        self.module = module
        self.prefixes = {
            name: tuple(map(slice, parameter.shape))
            for name, parameter in module.named_parameters()
            if ".attn." not in name
        }


def _plain_largest(space: SearchSpace) -> Architecture:
    """Dynamic attention on all patches at every greatest size; it need not be in the space."""
    layers = tuple(
        LayerChoice(
            num_tokens=space.backbone.num_patches,
            num_heads=max(domain.num_heads),
            mlp_ratio=max(domain.mlp_ratio),
        )
        for domain in space.layers
    )
    return Architecture(embed_dim=max(space.embed_dim), layers=layers)


def _fits(name: str, shape: Sequence[int], stored: Sequence[int]) -> bool:
    whole = not (".attn.qkv." in name and shape and shape[0] % 3)
    return whole and len(shape) == len(stored) and all(a <= b for a, b in zip(shape, stored, strict=True))


def _layers_of(domain: LayerDomain) -> Iterator[LayerChoice]:
    """Every choice of a layer whose operators may have weights of their own."""
    kinds = attention_choices(domain, 0)
    for tokens, reducer, (kind, heads, ratio, variant, _) in product(
        domain.num_tokens, domain.reducer, kinds
    ):
        yield LayerChoice(
            num_tokens=tokens,
            reducer=reducer,
            attention=kind,
            hallucination_ratio=ratio,
            hallucination=variant,
            num_heads=heads,
            mlp_ratio=max(domain.mlp_ratio),
        )


def _operator_shapes(
    domain: LayerDomain, plain: Architecture, space: SearchSpace
) -> dict[str, tuple[int, ...]]:
    """Greatest shape of every weight that a plain ViT does not have, by its stored name within the block."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in _layers_of(domain):
        with torch.device("meta"):
            block = Block(plain.embed_dim, layer, space.backbone)
        for name, parameter in block.named_parameters():
            if _operator(name) is None:
                continue
            stored = f"attn.static_map_{layer.num_tokens}" if name == "attn.static_map" else name
            known = shapes.get(stored, parameter.shape)
            shapes[stored] = tuple(max(pair) for pair in zip(known, parameter.shape, strict=True))
    return shapes


def _operator(name: str) -> str | None:
    """Which operator's weight a block's parameter is; None for those of a plain ViT."""
    local = name.split(".", 1)[1]
    for operator in INITIAL:
        if local == operator or local.startswith(operator + "_"):
            return operator
    return None


def _register(root: nn.Module, name: str, parameter: nn.Parameter) -> tuple[nn.Module, str]:
    """Register a parameter under a dotted name, so that the state dict has timm's keys; returns its owner."""
    *path, last = name.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module._modules[part]  # type: ignore[assignment]
    module.register_parameter(last, parameter)
    return module, last
