"""The YAML of a search space: its keys, what they may hold, and how they become a `SearchSpace`."""

import copy
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from nas.arch import ATTENTION, HALLUCINATION, REDUCERS, STEMS, Backbone, Rules, is_square
from nas.base import SearchSpaceError, command_line, keys_hint
from nas.settings import (
    Document,
    KeyPath,
    Problem,
    Section,
    apply_settings,
    check,
    in_order,
    scan_yaml,
    shown,
    suggestion,
)
from nas.space.constraints import Constraints
from nas.space.designs import Design
from nas.space.domain import GENES, LayerDomain

MAX_DEPTH = 100
MAX_SIZE = 65_536  # pixels, channels, heads; what of it fits into memory, `memory_problem` says
MAX_CHOICES = 100  # of a gene
MAX_CLASSES = 1_000_000
ASSUMED_CLASSES = 1000  # ImageNet's; a stand-in until the data is known

STAND_INS: dict[KeyPath, Any] = {  # for required keys that are wrong, so that the others can be checked
    ("name",): "unnamed",
    ("backbone",): {"image_size": 1, "patch_size": 1},
    ("backbone", "image_size"): 1,
    ("backbone", "patch_size"): 1,
    ("embed_dim",): 1,
    ("depth",): MAX_DEPTH,
}
LAYERWISE = {"layers", "overrides", "depth"}
"""Keys that decide which choices hold for which layer."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"names {shown(value)} twice")
    return values


def _read_classes(value: Any) -> int | None:
    if value == "auto":
        return None
    if type(value) is not int or value < 2:
        raise ValueError(f"must be a whole number of at least 2, or auto, got {shown(value)}")
    if value > MAX_CLASSES:
        raise ValueError(f"must be at most {MAX_CLASSES}, got {value}")
    return value


def _read_layers(value: Any) -> tuple[int | str, ...]:
    """Layer numbers, with `first` and `last` left as they are until the depth is known."""
    layers: list[int | str] = []
    for part in _as_list(value):
        span = re.fullmatch(r"(\d{1,9})\s*-\s*(\d{1,9})", part) if isinstance(part, str) else None
        if part in ("first", "last") or (isinstance(part, int) and part >= 0):
            layers.append(part)
        elif span and int(span[1]) <= int(span[2]):
            layers += range(int(span[1]), min(int(span[2]), MAX_DEPTH) + 1)
        else:
            raise ValueError(f"must be like 3, 0-1, first, last or [0, 2], got {shown(part)}")
    if not layers:
        raise ValueError("names no layer")
    return tuple(layers)


def _folder_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError(f"may hold only letters, digits and -_., as it names folders, got {shown(value)}")
    return value


def _name_of(table: Collection[str]) -> PlainValidator:
    """Reads the name of an operator."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in table:
            known = ", ".join(table)
            raise ValueError(f"{shown(value)} is not one of {known}{suggestion(str(value), table)}")
        return value

    return PlainValidator(read)


Space = TypeVar("Space")
Whole = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Positive = Annotated[float, Field(gt=0)]
_Choices = (Field(min_length=1, max_length=MAX_CHOICES), AfterValidator(_distinct), BeforeValidator(_as_list))


class BackboneSection(Section):
    """The part that is not searched."""

    family: Literal["vit"] = "vit"
    timm: str = ""
    image_size: Size
    patch_size: Size
    in_chans: Literal[3] = 3
    num_classes: Annotated[int | None, PlainValidator(_read_classes)] = None
    head_dim: Size = 64
    class_token: bool = True
    reg_tokens: Annotated[int, Field(ge=0, le=64)] = 0
    pool: Literal["", "token", "avg"] = ""
    final_norm: Literal["", "before", "after", "none"] = ""
    norm_pre: bool = False
    norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    act: Literal["gelu", "gelu_tanh", "silu"] = "gelu"
    key_tokens: Annotated[int, Field(ge=0, le=MAX_SIZE)] = 0
    positions: Literal["learned", "none"] = "learned"


class GeneSection(Section):
    """Choices for the genes of layers; a gene left out has the plain ViT's value."""

    num_tokens: Annotated[tuple[Whole, ...], *_Choices] | None = None
    reducer: Annotated[tuple[Annotated[str, _name_of(REDUCERS)], ...], *_Choices] | None = None
    embed_dim: Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_SIZE)], ...], *_Choices] | None = None
    attention: Annotated[tuple[Annotated[str, _name_of(ATTENTION)], ...], *_Choices] | None = None
    hallucination_ratio: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], *_Choices] | None = None
    hallucination: Annotated[tuple[Annotated[str, _name_of(HALLUCINATION)], ...], *_Choices] | None = None
    num_heads: Annotated[tuple[Size, ...], *_Choices] | None = None
    ffn_rank: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], *_Choices] | None = None
    ffn_conv: Annotated[tuple[Annotated[bool, Field(strict=True)], ...], *_Choices] | None = None
    mlp_ratio: Annotated[tuple[Annotated[float, Field(gt=0, le=1024)], ...], *_Choices] | None = None


class OverrideSection(GeneSection):
    """Other choices for some layers."""

    layers: Annotated[tuple[int | str, ...], PlainValidator(_read_layers)]


class RuleSection(Section):
    """Which sequences of layers are legal."""

    max_shared: Annotated[int, Field(ge=0)] = Rules().max_shared
    max_reductions: Annotated[int, Field(ge=0)] = Rules().max_reductions
    static_after_reduction: bool = Rules().static_after_reduction


class ConstraintSection(Section):
    """Hard bounds."""

    max_macs: Positive | None = None
    max_params: Positive | None = None
    max_memory: Positive | None = None
    max_latency_ms: Positive | None = None
    max_latency_ms_2: Positive | None = None
    max_latency_ms_3: Positive | None = None
    max_latency_ms_4: Positive | None = None


class SpaceFile(Section):
    """The whole file."""

    name: Annotated[str, AfterValidator(_folder_name)]
    backbone: BackboneSection
    embed_dim: Annotated[tuple[Size, ...], *_Choices]
    stem: Annotated[tuple[Annotated[str, _name_of(STEMS)], ...], *_Choices] = ("patch",)
    depth: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_DEPTH)], ...], *_Choices]
    layers: GeneSection = GeneSection()
    overrides: Annotated[tuple[OverrideSection, ...], BeforeValidator(lambda value: value or ())] = ()
    rules: RuleSection = RuleSection()
    constraints: ConstraintSection = ConstraintSection()
    seeds: Annotated[tuple[Design, ...], AfterValidator(_distinct), BeforeValidator(_as_list)] = get_args(Design)


def build_space(text: str, source: str, settings: Sequence[str], build: Callable[..., Space]) -> Space:
    """What `build` makes of a search space's YAML, with settings such as `constraints.max_macs=2e6` on top.

    `source` is the file's name in messages. Where an error of `build` names keys, here they get lines.

    Raises:
        SearchSpaceError: Lists every problem with its line.
    """
    document, problems = scan_yaml(text, source)
    document, found = apply_settings(document, settings)
    problems += found
    content, found = check(SpaceFile, document)
    problems += found
    hint, dropped = f"run `{command_line('check', 'FILE')}` after editing; {keys_hint()}", set[str]()
    if content is None:
        content, dropped = _without(document, found)
    if content is not None:
        problems += [problem for needs, problem in _contradictions(content, document, dropped) if not needs & dropped]
        if not problems:
            try:
                return build(**_attributes(content))
            except SearchSpaceError as error:
                hint = error.hint
                for words in error.problems:
                    key, _, rest = words.partition(": ")
                    layer = re.match(r"layer (\d+): ", rest)
                    path = _last_written(_layer_genes(content)[int(layer[1])]) if layer else (key,)
                    problems.append(document.problem(path, rest))
    raise SearchSpaceError(source, in_order(problems), hint=hint)


def _without(document: Document, problems: Sequence[Problem]) -> tuple[SpaceFile | None, set[str]]:
    """The file without the keys that are wrong, and these keys: what is left can still contradict itself."""
    data, dropped = copy.deepcopy(document.data), set()
    for problem in problems:
        path = problem.path
        while isinstance(path[-1], int) or not isinstance(_at(data, path[:-1]), dict):
            path = path[:-1]
        group = _at(data, path[:-1])
        dropped.add(str(path[-1]))
        if path in STAND_INS:
            group[path[-1]] = copy.copy(STAND_INS[path])
        elif path[:1] == ("overrides",) and path[2:] == ("layers",):
            group["layers"] = "first"
        else:
            group.pop(path[-1], None)
    if "backbone" in dropped:
        dropped |= {"image_size", "patch_size", "head_dim"}
    return check(SpaceFile, Document(document.source, data))[0], dropped


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        inside = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        data = data[part] if part in inside else None
    return data


class _Gene(NamedTuple):
    """The choices that hold for one gene of one layer, and where they are written (nowhere: a default)."""

    values: tuple[Any, ...]
    path: KeyPath = ()


def _layer_genes(content: SpaceFile) -> list[dict[str, _Gene]]:
    """For every layer, the choices after all overrides."""
    backbone = content.backbone
    patches, heads = (backbone.image_size // backbone.patch_size) ** 2, max(content.embed_dim) // backbone.head_dim
    domain = LayerDomain(num_tokens=(patches,), num_heads=(max(1, heads),))
    plain = {gene: _Gene(getattr(domain, gene)) for gene in GENES}
    genes = [plain | _written(content.layers, ("layers",)) for _ in range(max(content.depth))]
    for k, override in enumerate(content.overrides):
        for i in _numbers(override.layers, content.depth):
            if i < len(genes):
                genes[i] |= _written(override, ("overrides", k))
    return genes


def _written(section: GeneSection, path: KeyPath) -> dict[str, _Gene]:
    return {g: _Gene(chosen, (*path, g)) for g in GENES if (chosen := getattr(section, g)) is not None}


def _last_written(genes: dict[str, _Gene]) -> KeyPath:
    """The last group that says something of a layer."""
    group = max((gene.path[:2] for gene in genes.values() if gene.path), default=("layers",))
    return group if group[0] == "overrides" else ("layers",)


def _numbers(layers: Sequence[int | str], depths: Sequence[int]) -> set[int]:
    """Layer numbers; `last` is every layer that ends a network of some depth."""
    named = {"first": {0}, "last": {depth - 1 for depth in depths}}
    return set().union(*(named[part] if isinstance(part, str) else {part} for part in layers))


def _contradictions(content: SpaceFile, document: Document, dropped: set[str]) -> Iterator[tuple[set[str], Problem]]:
    """Problems between keys, each with the keys it was concluded from."""

    def at(path: KeyPath, text: str) -> Problem:
        return document.problem(document.existing(path), text)

    size, patch = content.backbone.image_size, content.backbone.patch_size
    side, too_much = divmod(size, patch)
    grid = None if too_much or {"image_size", "patch_size"} & dropped else side
    if too_much:
        legal = ", ".join(str(patch * n) for n in (side, side + 1) if n)
        text = f"{size} is not a multiple of patch_size {patch}; nearest legal: {legal}"
        yield {"image_size", "patch_size"}, at(("backbone", "image_size"), text)
    for i, stem in enumerate(content.stem):
        if broken := STEMS[stem].broken(Backbone(image_size=patch, patch_size=patch)):
            yield {"patch_size"}, at(("stem", i), broken)
    for k, override in enumerate(content.overrides):
        if beyond := [i for i in _numbers(override.layers, content.depth) if i >= max(content.depth)]:
            text = f"there is no layer {min(beyond)}; layers are 0 to {max(content.depth) - 1}"
            yield {"depth"}, at(("overrides", k, "layers"), text)
    sections: dict[KeyPath, GeneSection] = {("layers",): content.layers}
    sections |= {("overrides", k): override for k, override in enumerate(content.overrides)}
    tokens_are_legal, genes = True, _layer_genes(content)
    for section, written in sections.items():
        any_count = _grid_may_dissolve(genes, (*section, "num_tokens"))
        for i, n in enumerate(written.num_tokens or ()):
            if grid is not None and n > grid**2:
                tokens_are_legal = False
                yield set(), at((*section, "num_tokens", i), f"{n} is more than the {grid**2} patches")
            elif not is_square(n) and not any_count:
                tokens_are_legal = False
                yield {"reducer"}, at((*section, "num_tokens", i), _not_square(n, grid))
        for i, reducer in enumerate(written.reducer or ()):
            fixed = content.backbone
            prefix = Backbone(image_size=1, patch_size=1, class_token=fixed.class_token, reg_tokens=fixed.reg_tokens)
            if refused := REDUCERS[reducer].refused(prefix):
                yield {"class_token", "reg_tokens"}, at((*section, "reducer", i), refused)
        for gene in ("mlp_ratio", "ffn_rank"):
            for i, ratio in enumerate(getattr(written, gene) or ()):
                if widths := [w for w in content.embed_dim if abs(w * ratio - round(w * ratio)) > 1e-6]:
                    text = f"{ratio:g} x embed_dim {', '.join(map(str, widths))} is not whole"
                elif widths := [w for w in content.embed_dim if round(w * ratio) < 1]:
                    text = f"{ratio:g} x embed_dim {', '.join(map(str, widths))} leaves nothing"
                if widths:
                    yield {"embed_dim"}, at((*section, gene, i), text)
    if tokens_are_legal and grid is not None:
        yield from _growing_tokens(genes, grid**2, at)
    if all(ATTENTION[kind].shares for kind in genes[0]["attention"].values):
        *others, last = (kind.name for kind in ATTENTION.values() if not kind.shares)
        text = f"layer 0 has no layer before it to share with (C1); allow {', '.join(others)} or {last}"
        yield {"attention", *LAYERWISE}, at(genes[0]["attention"].path, text)
    for path in dict.fromkeys(layer["hallucination_ratio"].path for layer in genes):
        concerned = [layer for layer in genes if layer["hallucination_ratio"].path == path]
        ratio = max(concerned[0]["hallucination_ratio"].values)
        if ratio > 0 and all(layer["num_heads"].values == (1,) for layer in concerned):
            text = f"{ratio:g} needs at least 2 heads, but num_heads is 1 wherever it applies (C6)"
            yield {"num_heads", "head_dim", "embed_dim", *LAYERWISE}, at(path, text)


def _grid_may_dissolve(genes: Sequence[dict[str, _Gene]], path: KeyPath) -> bool:
    """Whether a reducer that leaves any number of tokens runs by a layer whose tokens are written at `path`."""
    concerned = [i for i, layer in enumerate(genes) if layer["num_tokens"].path == path]
    reducers = (layer["reducer"].values for layer in genes[: max(concerned, default=len(genes)) + 1])
    return any(not REDUCERS[name].keeps_grid for values in reducers for name in values)


def _not_square(num_tokens: int, side: int | None) -> str:
    """What is wrong with a token count on a grid of `side` x `side` patches (None: unknown)."""
    root = math.isqrt(num_tokens)
    nearest = [str(n**2) for n in (root, root + 1) if side is None or n <= side]
    return f"{num_tokens} is not a square number; nearest legal: {', '.join(nearest)}, or reducer glad (C10)"


def _growing_tokens(genes: Sequence[dict[str, _Gene]], patches: int, at: Any) -> Iterator[tuple[set[str], Problem]]:
    arriving = patches
    for i, layer in enumerate(genes):
        values, path = layer["num_tokens"]
        legal = [n for n in values if n <= arriving]
        if not legal:
            written = shown(list(values)) if path else f"num_tokens is left out, so {values[0]}"
            text = f"layer {i}: {written} is more than the {arriving} of layer {i - 1}; tokens never grow (C11)"
            yield {"num_tokens", *LAYERWISE}, at(path or genes[i - 1]["num_tokens"].path, text)
            return
        arriving = max(legal)


def _attributes(content: SpaceFile) -> dict[str, Any]:
    backbone = content.backbone
    return {
        "name": content.name,
        "backbone": Backbone(**backbone.model_dump() | {"num_classes": backbone.num_classes or ASSUMED_CLASSES}),
        "embed_dim": content.embed_dim,
        "stem": content.stem,
        "depth": content.depth,
        "layers": tuple(LayerDomain(**{gene: g.values for gene, g in la.items()}) for la in _layer_genes(content)),
        "constraints": Constraints.from_keys(content.constraints.model_dump()),
        "rules": Rules(**content.rules.model_dump()),
        "seeds": content.seeds,
        "num_classes_from_data": backbone.num_classes is None,
    }
