"""`Supernet`: one set of weights for every architecture of a search space, and the rule which slice is whose.

There is no active subnet and no second forward pass: a weightless `Subnet` skeleton runs on slices of the store
(`torch.func.functional_call`), so gradients flow through the views, and what is extracted is what was searched.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from nas.arch import Architecture
from nas.base import ArchitectureError, CheckpointError
from nas.model.block import Block
from nas.model.cuts import Fits, cut_inputs, fitted_to
from nas.model.families.vit import Subnet
from nas.model.layers.hallucination import OF_REAL_HEADS
from nas.model.layers.maps import Guidance
from nas.model.layers.part import Part
from nas.model.store import first_weights, plain_largest
from nas.space import SearchSpace

Value = TypeVar("Value")

PARTS = ("reducer", "widen", "attn", "mlp")
"""Of a block, those that may know their slices themselves."""
CACHED_SKELETONS = 256  # modules without weights
CACHED_BLOCKS = 2048  # layers of skeletons, some 40 kB each


class Supernet(nn.Module):
    """A store of weights at maximal size for the architectures of a space.

    Weights are entangled as in AutoFormer (arXiv 2107.00651): a subnet's channels are the first ones, its heads the
    first whole heads. What the operators add (static maps and GLAD queries, one per token count, hallucination weights,
    one set per number of real heads, low-rank factors, ...) has keys of its own. The seed is that of the initial
    weights. State dicts of earlier versions, which had one set of hallucination weights for all, can be loaded.

    Shapes: images [B, C, S, S] -> logits [B, K].

    Raises:
        ArchitectureError: `forward`, `extract`: the architecture is not in the space.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            weights, self._undecayed = first_weights(space)
        self.register_load_state_dict_pre_hook(_rename_old)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_take_factors)  # type: ignore[no-untyped-call]
        self._owners = {name: _register(self, name, parameter) for name, parameter in weights.items()}
        self._fits = Fits()
        self._skeletons: OrderedDict[Hashable, _Skeleton] = OrderedDict()
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()

    def forward(
        self, images: Tensor, architecture: Architecture, *, drop_path: float = 0.0, guidance: Guidance | None = None
    ) -> Tensor:
        """Logits of one architecture; drop path and guidance are for training."""
        guided = guidance is not None and guidance.static > 0
        skeleton = self._skeleton(architecture, drop_path, guided)
        skeleton.set_mode(self.training)
        weights, options = self._sliced(skeleton), {"guidance": guidance}
        return functional_call(skeleton.module, weights, (images,), options, tie_weights=False)  # type: ignore[no-any-return]

    def dense(self) -> Subnet:
        """The plain ViT of every greatest size, in the space or not, with its own weights, in evaluation mode."""
        return self._owning(plain_largest(self.space))

    def _sliced(self, skeleton: "_Skeleton") -> dict[str, Tensor]:
        stored: dict[str, Tensor] = {
            name: module._parameters[last]  # type: ignore[misc]
            for name, (module, last) in self._owners.items()
        }
        self._fits.apply(stored, skeleton.inputs, skeleton.depth)
        sliced = {name: stored[name][prefix] for name, prefix in skeleton.prefixes.items()}
        for path, module in skeleton.slicers.items():
            local = {name: stored[f"{path}.{name}"] for name in self._local_names[path]}
            sliced |= {f"{path}.{name}": value for name, value in module.slice_from(local).items()}
        return sliced

    @cached_property
    def _local_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the stored weights within each part of a block, such as `blocks.3.attn`."""
        paths = [f"blocks.{i}.{part}" for i in range(len(self.space.layers)) for part in PARTS]
        return {
            path: tuple(name.removeprefix(path + ".") for name in self._owners if name.startswith(path + "."))
            for path in paths
        }

    def extract(self, architecture: Architecture) -> Subnet:
        """A `Subnet` with its own copy of the weights, in evaluation mode."""
        self.check(architecture)
        return self._owning(architecture)

    def weights_of(self, subnet: Subnet) -> dict[str, Tensor]:
        """What a subnet would be extracted with, by its own names, as views of the store where they are slices."""
        return self._sliced(_Skeleton(subnet))

    def lend(self, module: nn.Module) -> None:
        """Give a module made on the meta device, whose parameters have a subnet's names, its weights.

        They are views of the store where they are slices: not to be written.
        """
        lent = {name: value.detach() for name, value in self._sliced(_Skeleton(module)).items()}
        module.load_state_dict(lent, assign=True)

    def _owning(self, architecture: Architecture) -> Subnet:
        with torch.device("meta"):
            subnet = Subnet(self.space.backbone, architecture)
        owned = {name: value.detach().clone().contiguous() for name, value in self._sliced(_Skeleton(subnet)).items()}
        subnet.load_state_dict(owned, assign=True)
        return subnet.requires_grad_(True).eval()

    def load_timm(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Start from a plain timm ViT's state dict: every tensor fills the first channels and heads of the stored one.

        Position embeddings of another grid are resampled, and a classifier of another size is left as it is. Returns
        the names of the stored weights that were not given, such as static maps.

        Raises:
            CheckpointError: A tensor does not fit or is not one of a plain ViT; names them all.
        """
        stored = dict(self.named_parameters())
        given, problems = dict(weights), []
        if "pos_embed" in given and "pos_embed" in stored:
            positions, prefix = given["pos_embed"], self.space.backbone.num_prefix_tokens
            patches = positions.shape[1] - prefix if positions.ndim == 3 else 0
            if patches < 1 or math.isqrt(patches) ** 2 != patches:
                problems.append(f"pos_embed: {tuple(positions.shape)} is not {prefix} class token and a square grid")
                del given["pos_embed"]
            else:
                side = math.isqrt(self.space.backbone.num_patches)
                given["pos_embed"] = resample_abs_pos_embed(positions, new_size=(side, side), num_prefix_tokens=prefix)
        classes = self.space.backbone.num_classes
        if "head.weight" in given and len(given["head.weight"]) != classes:
            given = {name: value for name, value in given.items() if not name.startswith("head.")}
        for name, value in given.items():
            if name not in stored:
                lacks_stem = name.startswith("patch_embed.") and "patch" not in self.space.stem
                reason = "the space has no patch stem to start from" if lacks_stem else "not a weight of this supernet"
                reason = "no network of the space has it: set layers.ffn_conv" if ".dwconv." in name else reason
                problems.append(f"{name}: {reason}")
            elif not _fits(name, value.shape, stored[name].shape):
                problems.append(f"{name}: {tuple(value.shape)} does not fit into {tuple(stored[name].shape)}")
        if problems:
            raise CheckpointError(
                "the weights do not fit this search space:\n  " + "\n  ".join(problems),
                hint="patch_size, head_dim, greatest depth, embed_dim and mlp_ratio must match the model's",
            )
        with torch.no_grad():
            for name, value in given.items():
                source = _in_parts(name, value)
                _in_parts(name, stored[name])[tuple(map(slice, source.shape))].copy_(source)
        return [name for name in stored if name not in given]

    def load_slices(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the state dict of a supernet whose space has all choices of this one, and perhaps more.

        Every weight becomes the first channels, heads and neurons of the given one, as subnets slice it: architectures
        of this space have the same logits in both, bit for bit where no factor is given (`load_factors`).

        Raises:
            CheckpointError: A weight is missing or too small; names them all.
        """
        given, stored = dict(weights), dict(self.named_parameters())
        _rename_old(self, given)
        given = fitted_to(given, {name: weight.shape for name, weight in stored.items()}, self.space)
        problems = []
        for name, parameter in stored.items():
            if name not in given:
                problems.append(f"{name} is missing")
            elif not _fits(name, parameter.shape, given[name].shape):
                problems.append(f"{name}: {tuple(given[name].shape)} has no {tuple(parameter.shape)}")
        if problems:
            raise CheckpointError("the weights are not of a larger space:\n  " + "\n  ".join(problems))
        with torch.no_grad():
            for name, parameter in stored.items():
                into = _in_parts(name, parameter)
                into.copy_(_in_parts(name, given[name])[tuple(map(slice, into.shape))])
        self.load_factors(given)

    def load_factors(self, weights: Mapping[str, Tensor]) -> None:
        """Take the factors (`factor_of`) among given weights: from now on, matrices with fewer inputs are fitted.

        So is the classifier behind fewer layers, by maps of features (`DEPTH`). The whole network has the same logits.
        Subnets, trained or not, use all of a matrix then, not its first columns.
        """
        self._fits.load(self, weights)

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimiser does not decay (timm's interface)."""
        return {"pos_embed", "cls_token", "reg_token", *self._undecayed}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - timm's interface
        """Which layer a parameter belongs to, for layer-wise decay of the learning rate (timm's interface)."""
        return {
            "stem": r"^cls_token|^reg_token|^pos_embed|^patch_embed|^norm_pre",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^fc_norm", (99999,))],
        }

    def check(self, architecture: Architecture) -> None:
        """Raise an ArchitectureError if an architecture is not in the space."""
        if reasons := self.space.why_not(architecture):
            raise ArchitectureError(
                f"architecture {architecture.digest} is not in space {self.space.name}: " + "; ".join(reasons)
            )

    def _skeleton(self, architecture: Architecture, drop_path: float, guided: bool) -> "_Skeleton":
        def build() -> _Skeleton:
            self.check(architecture)
            block = partial(self._block, Counter[Hashable]())
            with torch.device("meta"), _Weightless():
                return _Skeleton(
                    Subnet(self.space.backbone, architecture, drop_path=drop_path, guided=guided, build_block=block)
                )

        return _cached(self._skeletons, (architecture, drop_path, guided), build, CACHED_SKELETONS)

    def _block(self, used: Counter[Hashable], *args: Hashable, **options: Hashable) -> Block:
        """A layer of a skeleton. Skeletons share them, but none has one twice: its layers have weights of their own.

        Building layers is most of what a new architecture costs a step; they repeat far more often than architectures.
        """
        alike = (*args, *options.items())
        used[alike] += 1
        build = partial(Block, *args, **options)  # type: ignore[arg-type]
        return _cached(self._blocks, (alike, used[alike]), build, CACHED_BLOCKS)


class _Skeleton:
    """A subnet, or parts of one under their names in it, without weights, and where its parameters come from."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        # Parts of blocks that know their slices themselves, by path.
        self.slicers = {path: part for path, part in module.named_modules() if isinstance(part, Part)}
        sliced = {f"{path}.{name}" for path, part in self.slicers.items() for name, _ in part.named_parameters()}
        self.inputs = tuple(cut_inputs(module))
        self.depth = len(module.architecture.layers) if isinstance(module, Subnet) else 0
        self.blocks = tuple(module.blocks) if isinstance(module, Subnet) else ()
        # Which prefix of the stored weight each other parameter is.
        self.prefixes = {
            name: tuple(map(slice, parameter.shape))
            for name, parameter in module.named_parameters()
            if name not in sliced
        }

    def set_mode(self, training: bool) -> None:
        """As `train` does, where a subnet or one of its layers, which others may have set, is in the other mode."""
        if any(module.training != training for module in (self.module, *self.blocks)):
            self.module.train(training)


class _Weightless(TorchFunctionMode):
    """Leaves out what `nn.init` does to tensors on the meta device: nothing, in half of the time that a layer takes."""

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else None
        return func(*args, **(kwargs or {}))


def _cached(cache: OrderedDict[Hashable, Value], key: Hashable, build: Callable[[], Value], most: int) -> Value:
    """What is kept under a key, built where there is nothing; of more than `most` the least recently used one goes."""
    if key not in cache:
        cache[key] = build()
        if len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def _fits(name: str, shape: Sequence[int], stored: Sequence[int]) -> bool:
    whole = not (".attn.qkv." in name and shape and shape[0] % 3)
    return whole and len(shape) == len(stored) and all(a <= b for a, b in zip(shape, stored, strict=True))


def _in_parts(name: str, weight: Tensor) -> Tensor:
    """A weight with its rows in parts that have first ones each: queries, keys and values; others are one part."""
    return torch.unflatten(weight, 0, (3, -1) if ".attn.qkv." in name else (1, -1))


def _rename_old(supernet: nn.Module, state: dict[str, Tensor], *_: object) -> None:
    """Give every set of hallucination weights its part of the one that earlier versions had for all of them."""
    old: set[str] = set()
    for name, parameter in supernet.named_parameters():
        former = OF_REAL_HEADS.sub("hallucinate.", name)
        if former != name and former in state:
            state[name] = state[former][tuple(map(slice, parameter.shape))].clone()
            old.add(former)
    for former in old:
        del state[former]


def _take_factors(supernet: Supernet, state: Mapping[str, Tensor], *_: object) -> None:
    """Make room for factors."""
    supernet.load_factors(state)


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
