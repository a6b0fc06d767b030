"""`Genome`: a search space as flat parameters; whatever they decode to is legal. What draws and describes takes it.

`SearchSpace` adds a file, a size and draws.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, product
from operator import itemgetter
from typing import Any

from nas.arch import (
    ATTENTION,
    HALLUCINATION,
    REDUCERS,
    STEMS,
    Architecture,
    Backbone,
    LayerChoice,
    Rules,
    hallucinated_heads,
    stored_rank,
)
from nas.base import ArchitectureError, SearchSpaceError, cached_method, keys_hint
from nas.space.bounds import Extremes, why_infeasible
from nas.space.constraints import Constraints
from nas.space.domain import GENES, LayerDomain
from nas.space.walk import LegalSequences, why_empty

# Between the layers of a space. `check` of 147,000 (50 layers, 16 numbers of heads, 11 of tokens) took 12 to 20 s of
# CPU by the load of the machine, `largest` with bounds on MACs and parameters 26 s; with one on memory 300 took 3 s.
MOST_STATES, MOST_WITH_MEMORY = 200_000, 3_000
Value = int | float | str
COST_RANKS: dict[Value, int] = {
    operator.name: operator.rank for table in (ATTENTION, REDUCERS, HALLUCINATION, STEMS) for operator in table.values()
}
"""Operators from cheap to dear."""
_legal_sequences, _extremes = lru_cache(maxsize=16)(LegalSequences), lru_cache(maxsize=16)(Extremes)
"""Spaces that differ in their bounds or their name share what is found."""


@dataclass(frozen=True, kw_only=True)
class Genome:
    """The legal architectures over one backbone, and the flat parameters that stand for them.

    Raises:
        SearchSpaceError: The domains contradict each other, or no architecture meets the constraints.
    """

    name: str  # names the run folders
    backbone: Backbone  # the fixed part
    embed_dim: tuple[int, ...]  # widths to choose from
    stem: tuple[str, ...] = ("patch",)  # how an image may become patch tokens
    depth: tuple[int, ...]  # numbers of layers to choose from
    layers: tuple[LayerDomain, ...]  # domains of layer 0 up to the greatest depth
    constraints: Constraints = field(default_factory=Constraints)  # hard bounds
    rules: Rules = field(default_factory=Rules)  # which sequences of layers are legal

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if not problems:
            self._look_through()
        if not problems:
            problems += [
                f"layers: {text}" for width in self._starts if (text := why_empty(self.walk, width, min(self.depth)))
            ]
        if problems:
            raise SearchSpaceError(self.name, problems, hint=keys_hint())
        if self._smallest is None:
            text = f"constraints: {why_infeasible(self._extremes, self.constraints)}"
            raise SearchSpaceError(self.name, [text], hint="raise the bound, or allow cheaper choices")

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """The first widths, then those that layers may grow to."""
        grown = (n for domain in self.layers for n in domain.embed_dim if n)
        return tuple(dict.fromkeys([*self.embed_dim, *grown]))

    @cached_property
    def greatest_widths(self) -> tuple[int, ...]:
        """The greatest width of each layer."""
        grown = (max(domain.embed_dim) for domain in self.layers)
        return tuple(accumulate(grown, max, initial=max(self.embed_dim)))[1:]

    @property
    def _starts(self) -> tuple[int, ...]:
        """The widths whose networks have different rules."""
        return self.embed_dim if self.walk.grows else self.embed_dim[:1]

    def _look_through(self) -> None:
        """Raise where finding its extremes would take longer than anybody waits."""
        most, bounded = (
            (MOST_STATES, "") if self.constraints.max_memory is None else (MOST_WITH_MEMORY, "max_memory and ")
        )
        if self.walk.has_more_states(most, self._starts):
            text = f"layers: with {bounded}so many choices, there are more than {most:,} states between layers"
            text += " (tokens, heads to share, reductions left), too many to look through"
            hint = "fewer num_tokens, num_heads or hallucination_ratio, fewer layers, or a lower rules.max_shared"
            raise SearchSpaceError(self.name, [text], hint=hint)

    def _problems(self) -> Iterator[str]:
        for key in ("embed_dim", "depth"):
            values = getattr(self, key)
            if not values or len(set(values)) != len(values) or min(values) < 1:
                yield f"{key}: needs one or more different positive numbers, got {list(values)}"
        if not self.stem or len(set(self.stem)) != len(self.stem):
            yield f"stem: needs one or more different choices, got {list(self.stem)}"
        for stem in self.stem:
            if broken := STEMS[stem].broken(self.backbone) if stem in STEMS else f"not one of {', '.join(STEMS)}":
                yield f"stem: {stem}: {broken}"
        if self.depth and len(self.layers) != max(self.depth):
            yield f"layers: {len(self.layers)} domains for a greatest depth of {max(self.depth)}"
        for i, domain in enumerate(self.layers):
            for gene in GENES:
                values = getattr(domain, gene)
                if not values:
                    yield f"layers.{i}.{gene}: needs at least one choice"
                elif len(set(values)) != len(values):
                    yield f"layers.{i}.{gene}: {list(values)} names a choice twice"
                for value in values:
                    genes = {"num_tokens": 1, "num_heads": 1, "mlp_ratio": 1.0, gene: value}
                    if gene == "embed_dim":
                        genes["reducer"] = "pool"
                    try:
                        LayerChoice(**genes)
                    except ArchitectureError as error:
                        yield f"layers.{i}.{gene}: {error.message.removeprefix('layer choice: ')}"
            if self.backbone.key_tokens and (raster := [r for r in domain.reducer if not REDUCERS[r].keeps_grid]):
                yield f"layers.{i}.reducer: {', '.join(raster)} leaves no grid, on which key_tokens are reduced (C17)"
            for reducer in domain.reducer:
                if reducer in REDUCERS and (refused := REDUCERS[reducer].refused(self.backbone)):
                    yield f"layers.{i}.reducer: {refused}"
            for n in domain.num_tokens:
                try:
                    self.backbone.key_stride(n)
                except ArchitectureError as error:
                    yield f"layers.{i}.num_tokens: {error.message}"
                if n > self.backbone.num_patches:
                    yield f"layers.{i}.num_tokens: {n} is more than the {self.backbone.num_patches} patches"
            for width, gene in product(self.widths, ("mlp_ratio", "ffn_rank")):
                for ratio in getattr(domain, gene):
                    if abs(width * ratio - round(width * ratio)) > 1e-6:
                        yield f"layers.{i}.{gene}: {ratio} x embed_dim {width} is not whole"
                    elif round(width * ratio) < 1:
                        yield f"layers.{i}.{gene}: {ratio} x embed_dim {width} leaves nothing"

    @cached_property
    def walk(self) -> LegalSequences:
        """The legal sequences of layers."""
        return _legal_sequences(self.backbone, self.layers, self.rules)

    @cached_property
    def _extremes(self) -> Extremes:
        return _extremes(self.walk, self.embed_dim, self.stem, self.depth)

    @cached_property
    def _smallest(self) -> Architecture | None:
        found = self._extremes.least("max_macs", self.constraints)
        return found.architecture if found and self.within_constraints(found.architecture) else None

    def smallest(self) -> Architecture:
        """The architecture with the fewest MACs within the constraints."""
        assert self._smallest is not None, "checked at construction"
        return self._smallest

    def within_constraints(self, architecture: Architecture) -> bool:
        """Whether MACs, parameters and memory keep the hard bounds."""
        return self.excess(architecture) == 0

    def excess(self, architecture: Architecture) -> float:
        """By what share MACs, parameters and memory, together, exceed the hard bounds; 0 within them."""
        return self.constraints.excess(architecture, self.backbone)

    def __contains__(self, architecture: object) -> bool:
        return isinstance(architecture, Architecture) and not self.why_not(architecture)

    def why_not(self, architecture: Architecture) -> list[str]:
        """Every reason why an architecture is not in the space; empty when it is."""
        reasons = []
        if architecture.embed_dim not in self.embed_dim:
            reasons.append(f"embed_dim {architecture.embed_dim} is not one of {list(self.embed_dim)}")
        if architecture.stem not in self.stem:
            reasons.append(f"stem {architecture.stem} is not one of {list(self.stem)}")
        if architecture.depth not in self.depth:
            return [*reasons, f"depth {architecture.depth} is not one of {list(self.depth)}"]
        if illegal := self.walk.why_not(architecture.embed_dim, architecture.layers):
            return [*reasons, illegal]
        if not reasons and not self.within_constraints(architecture):
            reasons.append(f"it breaks the constraints: {self.constraints.text()}")
        return reasons

    @property
    def has_stems(self) -> bool:
        """Whether another stem than the plain ViT's may be chosen."""
        return self.stem != ("patch",)

    @cached_method
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """Flat parameters, such as `layers.07.attention`, and their values; the same for all."""
        flat: dict[str, tuple[Value, ...]] = {"embed_dim": self.embed_dim, "depth": self.depth}
        if self.has_stems:
            flat["stem"] = self.stem
        for i, domain in enumerate(self.layers):
            for gene in domain.genes:
                flat[f"layers.{i:02d}.{gene}"] = getattr(domain, gene)
        return flat

    @cached_property
    def choices_cheap_first(self) -> dict[str, list[Value]]:
        """Flat parameters, and their values from the cheapest to the most costly."""
        return {
            name: sorted(values, key=lambda v: COST_RANKS.get(v, v), reverse=name.endswith("hallucination_ratio"))
            for name, values in self.choices().items()
        }

    def encode(self, architecture: Architecture) -> dict[str, Value]:
        """Flat parameters that decode to `architecture`; genes without effect get their first value.

        Raises:
            ArchitectureError: It is not in this space; names the reasons.
        """
        if reasons := self.why_not(architecture):
            raise ArchitectureError(f"not in space {self.name}: " + "; ".join(reasons))
        return self.encode_unbounded(architecture)

    def encode_unbounded(self, architecture: Architecture) -> dict[str, Value]:
        """`encode` for an architecture that may break the constraints, but no other rule of the space."""
        params = {name: values[0] for name, values in self.choices().items()}
        params |= {"embed_dim": architecture.embed_dim, "depth": architecture.depth}
        params |= {"stem": architecture.stem} if self.has_stems else {}
        provider = architecture.layers[0]
        for i, layer in enumerate(architecture.layers):
            prefix = f"layers.{i:02d}."
            genes = (gene for gene in self.layers[i].genes if layer.reducer or gene != "embed_dim")
            params |= {prefix + gene: v for gene in genes if (v := getattr(layer, gene)) is not None}
            if not layer.kind.shares:
                provider = layer
            domain, derived = self.layers[i], layer.num_hallucinated
            params[prefix + "hallucination_ratio"] = next(
                ratio
                for ratio in domain.hallucination_ratio
                if layer.kind.derived(hallucinated_heads(layer.num_heads, ratio), provider.num_hallucinated) == derived
            )
            params[prefix + "ffn_rank"] = next(
                rank for rank in domain.ffn_rank if stored_rank(layer.mlp_ratio, rank) == layer.ffn_rank
            )
        return params

    def decode(self, params: Mapping[str, Any]) -> Architecture:
        """The architecture that flat parameters stand for, repaired where they contradict each other.

        Always in the space: a value that is illegal where it stands is replaced (tokens by the next lower legal count,
        a shared layer without provider by a dynamic one, ...), and where the hard constraints are broken, genes are
        moved to the smallest architecture's, as few as suffice. Parameters with one choice may be left out.

        Raises:
            ArchitectureError: A name or a value is not one of the space's.
        """
        problems = [f"unknown parameter {name!r}" for name in params if name not in self.choices()]
        wanted: dict[str, Value] = {}
        for name, values in self.choices().items():
            value = params.get(name, values[0] if len(values) == 1 else None)
            if value not in values:
                problems.append(f"{name}: {value!r} is not one of {list(values)}")
            else:
                wanted[name] = value
        if problems:
            raise ArchitectureError("decode: " + "; ".join(problems), hint="names and values: SearchSpace.choices()")
        return self.repair(self.nearest(wanted))

    def nearest(self, wanted: Mapping[str, Value]) -> Architecture:
        """The nearest legal architecture to a value for every parameter; constraints do not count."""
        depth = int(wanted["depth"])
        width = int(wanted["embed_dim"])
        if not self.walk.count(self.walk.begin(width), depth):
            depth = next(d for d in self.depth if self.walk.count(self.walk.begin(width), d))
        genes = [genes_of(wanted) for genes_of in self._genes_of_layers[:depth]]
        stem, layers = str(wanted.get("stem", self.stem[0])), self.walk.nearest(width, genes)
        return Architecture(embed_dim=width, stem=stem, layers=layers)

    @cached_property
    def _genes_of_layers(self) -> list[Callable[[Mapping[str, Value]], tuple[Value, ...]]]:
        return [
            itemgetter(*(f"layers.{i:02d}.{gene}" for gene in domain.genes)) for i, domain in enumerate(self.layers)
        ]

    def repair(self, architecture: Architecture) -> Architecture:
        """Move few genes to the smallest architecture's until the bounds hold, then back each that fits after all.

        In an order of the architecture's own, so that what exceeds a bound is not all led to the same networks.
        """
        if self.within_constraints(architecture):
            return architecture
        small, params = self.encode_unbounded(self.smallest()), self.encode_unbounded(architecture)
        salt = architecture.digest
        order = sorted(params, key=lambda name: hashlib.sha256((salt + name).encode()).digest())
        order = [name for name in order if params[name] != small[name]]

        def moved(names: Collection[str]) -> Architecture:
            return self.nearest(params | {name: small[name] for name in names})

        low, high = 0, len(order)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.within_constraints(moved(order[:middle])) else (middle, high)
        names, repaired = order[:high], moved(order[:high])
        if not self.within_constraints(repaired):
            return self.smallest()
        for name in order[: high - 1]:
            fewer = [other for other in names if other != name]
            if self.within_constraints(found := moved(fewer)):
                names, repaired = fewer, found
        return repaired
