"""Known designs as architectures: legal in every space, and with their property where the space allows it."""

from dataclasses import replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from small_spaces import every_choice, space, stems

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.base.errors import SearchSpaceError
from nas.space.constraints import Constraints
from nas.space.designs import DESIGNS, MOST_SHAPES, is_plain, known_designs, plain_shapes
from nas.space.domain import GENES, LayerDomain
from nas.space.space import SearchSpace

FOLDER = Path(__file__).parents[2] / "search_spaces"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SHARED, STATIC, DYNAMIC = "shared", "static", "dynamic"


@cache
def load(name: str) -> SearchSpace:
    return SearchSpace.from_yaml(FOLDER / f"{name}.yaml")


def design(searched: SearchSpace, name: str) -> Architecture:
    return known_designs(searched, [name])[name]


def kinds(architecture: Architecture) -> list[str]:
    return [layer.attention for layer in architecture.layers]


def reduced_at(architecture: Architecture) -> list[int]:
    return [i for i, layer in enumerate(architecture.layers) if layer.reducer]


def everything(**changes) -> SearchSpace:
    """Twelve layers that may be anything but static maps behind a reduction."""
    genes = {"num_tokens": (16, 9, 4), "num_heads": (2, 4), "hallucination_ratio": (0.0, 0.5)}
    return space(every_choice(**genes), depth=(8, 12), embed_dim=(16, 24, 32), **changes)


@pytest.mark.parametrize("name", NAMES)
def test_designs_are_in_every_shipped_space(name):
    searched = load(name)
    found = known_designs(searched, DESIGNS)
    assert [key for key, architecture in found.items() if architecture not in searched] == []
    assert len(set(found.values())) == len(found) >= 2
    assert next(iter(found)) == "deit"


def random_domain(rng: np.random.Generator, first: bool) -> LayerDomain:
    whole = every_choice()
    genes = {}
    for gene in GENES:
        values = getattr(whole, gene)
        chosen = rng.permutation(len(values))[: rng.integers(1, len(values) + 1)]
        genes[gene] = tuple(values[i] for i in chosen)
    if first:
        genes["num_tokens"], genes["attention"] = (16,), (DYNAMIC, *genes["attention"])
    else:
        genes["num_tokens"] = (*genes["num_tokens"], 16, 4)
    return LayerDomain(**{gene: tuple(dict.fromkeys(values)) for gene, values in genes.items()})


def random_space(seed: int) -> SearchSpace | None:
    """Any space; none where the random domains leave nothing."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 7))
    layers = tuple(random_domain(rng, first=i == 0) for i in range(depth))
    rules = Rules(max_shared=int(rng.integers(4)), max_reductions=int(rng.integers(4)))
    depths = tuple(dict.fromkeys((depth, int(rng.integers(1, depth + 1)))))
    try:
        return space(layers=layers, depth=depths, rules=rules)
    except SearchSpaceError as error:
        assert "no choice is legal" in error.message  # noqa: PT017
        return None


def bounded(searched: SearchSpace, seed: int) -> SearchSpace:
    low, high = searched.memory_range()
    share = np.random.default_rng(seed).random()
    return replace(searched, constraints=Constraints(max_memory=low + (high - low) * share))


@pytest.mark.parametrize("seed", range(10))
def test_designs_are_in_random_spaces_and_within_their_bounds(seed):
    if (searched := random_space(seed)) is None:
        return
    for known in (searched, bounded(searched, seed)):
        found = known_designs(known, DESIGNS)
        assert [key for key, architecture in found.items() if architecture not in known] == []


def plain_by_definition(searched: SearchSpace) -> set[Architecture]:
    """The long way round: every width, depth, heads and MLP ratio, and of the heads the nearest to those of a ViT."""
    ratios = {ratio for domain in searched.layers for ratio in domain.mlp_ratio}
    counts = sorted({heads for domain in searched.layers for heads in domain.num_heads}, reverse=True)
    unbounded, found = replace(searched, constraints=Constraints()), set()
    for width, depth, ratio in product(searched.embed_dim, searched.depth, ratios):
        wanted = width / searched.backbone.head_dim
        for convolves in (False, True):  # only where no network is without
            layers = (LayerChoice(num_tokens=16, num_heads=n, mlp_ratio=ratio, ffn_conv=convolves) for n in counts)
            legal = [a for one in layers if (a := Architecture(embed_dim=width, layers=(one,) * depth)) in unbounded]
            if legal:
                found.add(min(legal, key=lambda a: abs(a.layers[0].num_heads - wanted)))
                break
    return {architecture for architecture in found if architecture in searched}


@pytest.mark.parametrize("seed", range(40))
def test_plain_shapes_are_all_plain_vits_of_random_spaces(seed):
    if (searched := random_space(seed)) is None:
        return
    for known in (searched, bounded(searched, seed)):
        found = plain_shapes(known)
        assert set(found) == plain_by_definition(known)
        assert len(set(found)) == len(found) <= MOST_SHAPES
        assert all(map(is_plain, found))
        macs = [cost.macs(architecture, known.backbone) for architecture in found]
        assert macs == sorted(macs)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_space_has_plain_shapes_of_each_width_and_depth(name):
    searched = load(name)
    found = plain_shapes(searched)
    assert [shape for shape in found if shape not in searched] == []
    assert {shape.embed_dim for shape in found} == set(searched.embed_dim)
    assert {shape.depth for shape in found} == set(searched.depth)
    if not searched.walk.grows:  # else there are heads for wider layers, too
        assert design(searched, "deit") == [shape for shape in found if shape.stem == searched.stem[0]][-1]


def test_a_plain_vit_convolves_in_all_feed_forwards_or_in_none():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    with_it = replace(layer, ffn_conv=True)
    for layers, plain in (((layer, layer), True), ((with_it, with_it), True), ((layer, with_it), False)):
        assert is_plain(Architecture(embed_dim=16, layers=layers)) == plain


def test_of_many_shapes_a_few_are_spread_from_the_least_to_the_greatest():
    domain = LayerDomain(num_tokens=(16,), num_heads=tuple(range(1, 41)), mlp_ratio=tuple(range(1, 41)))
    searched = space(domain, embed_dim=tuple(range(8, 328, 8)), depth=tuple(range(1, 41)))
    found = plain_shapes(searched)
    assert len(set(found)) == MOST_SHAPES
    assert found[-1] == searched.largest()
    assert (found[0].embed_dim, found[0].depth, found[0].layers[0].mlp_ratio) == (8, 1, 1)
    steps = np.diff([np.log(cost.macs(shape, searched.backbone)) for shape in found])
    assert max(steps) < 2 * np.median(steps)
    fewer = plain_shapes(searched, most=5)
    assert (len(fewer), fewer[0], fewer[-1]) == (5, found[0], found[-1])


def test_a_space_without_full_ranks_or_all_tokens_has_no_plain_shape():
    assert plain_shapes(space(every_choice(ffn_rank=(0.25,)))) == ()
    assert plain_shapes(space(every_choice(num_tokens=(9, 4)))) == ()
    assert plain_shapes(space(layers=(every_choice(num_heads=(1,)), every_choice(num_heads=(2,))), depth=(2,))) == ()


class TestProperties:
    """On a space that has everything: 16 patches, 12 layers."""

    def test_deit_is_the_widest_deepest_plain_vit(self):
        layer = LayerChoice(num_tokens=16, num_heads=4, mlp_ratio=2.0)
        assert design(everything(), "deit") == Architecture(embed_dim=32, layers=(layer,) * 12)

    def test_psvit_pools_twice_and_shares_every_second_layer(self):
        found = design(everything(), "psvit")
        assert reduced_at(found) == [4, 8]
        assert [layer.num_tokens for layer in found.layers] == [16] * 4 + [9] * 4 + [4] * 4
        assert {layer.reducer for layer in found.layers} == {None, "pool"}
        assert kinds(found) == [DYNAMIC, SHARED] * 6

    def test_dgssa_glad_is_static_early_and_gathers_once(self):
        found = design(everything(), "dgssa_glad")
        assert kinds(found) == [STATIC] * 4 + [DYNAMIC] * 8
        assert reduced_at(found) == [6]
        assert (found.layers[6].reducer, found.layers[6].num_tokens) == ("glad", 4)

    def test_hmhsa_cffn_derives_half_of_the_heads_and_has_compact_feed_forwards(self):
        found = design(everything(), "hmhsa_cffn")
        assert {(layer.num_hallucinated, layer.num_heads) for layer in found.layers} == {(2, 4)}
        assert {layer.hallucination for layer in found.layers} == {"mix_conv"}
        assert {layer.ffn_rank for layer in found.layers} == {0.5}

    def test_castling_is_linear_but_in_the_last_layer(self):
        assert kinds(design(everything(), "castling")) == ["linear"] * 11 + [DYNAMIC]

    def test_uniform_scalings_fall_in_every_size(self):
        found = list(known_designs(everything(), ["uniform"]).values())
        sizes = [
            (a.embed_dim, a.depth, la.num_heads, la.mlp_ratio, la.num_tokens) for a in found for la in a.layers[-1:]
        ]
        assert len(sizes) == 4
        for larger, smaller in pairwise(sizes):
            assert all(a >= b for a, b in zip(larger, smaller, strict=True))
        assert sizes[0] == (32, 12, 4, 2.0, 16)
        assert sizes[-1] == (16, 8, 2, 0.5, 4)
        assert {kind for a in found for kind in kinds(a)} == {DYNAMIC}


@pytest.mark.parametrize("name", ["psvit", "joint_tiny", "cifar_joint"])
def test_psvit_shares_and_pools_where_a_shipped_space_can(name):
    found = design(load(name), "psvit")
    assert len(reduced_at(found)) == 2
    assert kinds(found).count(SHARED) >= found.depth // 4


def test_designs_of_papers_are_those_of_their_spaces():
    static = kinds(design(load("dgssa_glad"), "dgssa_glad"))
    assert static == [STATIC] * 4 + [DYNAMIC] * 8
    linear = kinds(design(load("castling"), "castling"))
    assert linear == ["linear"] * 11 + [DYNAMIC]
    derived = design(load("hmhsa_cffn"), "hmhsa_cffn")
    assert cost.macs(derived, load("hmhsa_cffn").backbone) == pytest.approx(3.65e9, rel=2e-3)  # METHODS 1.4


def test_a_bound_makes_a_design_smaller_before_it_takes_its_pattern():
    free = everything()
    most = cost.macs(design(free, "psvit"), free.backbone)
    bounded = everything(constraints=Constraints(max_macs=0.6 * most))
    found = design(bounded, "psvit")
    assert found in bounded
    assert len(reduced_at(found)) == 2
    assert kinds(found).count(SHARED) >= found.depth // 3
    assert found.embed_dim < 32


def test_designs_that_become_the_same_architecture_keep_the_first_name():
    plain = every_choice(
        num_tokens=(16,),
        attention=(DYNAMIC,),
        hallucination_ratio=(0.0,),
        num_heads=(2,),
        ffn_rank=(1.0,),
        mlp_ratio=(2.0,),
    )
    searched = space(plain, depth=(3,), embed_dim=(16,))
    assert list(known_designs(searched, DESIGNS)) == ["deit"]
    assert list(known_designs(searched, ["uniform", "psvit"])) == ["uniform-1"]
    assert known_designs(searched, []) == {}


def test_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(SearchSpaceError, match="seeds: 'vit' is not one of deit, psvit, dgssa_glad") as error:
        known_designs(everything(), ["deit", "vit"])
    assert error.value.hint


def test_designs_keep_the_patch_stem_and_plain_vits_have_each():
    both = stems()
    assert {a.stem for a in known_designs(both, DESIGNS).values()} == {"patch"}
    assert {a.stem for a in known_designs(stems(stem=("conv",)), DESIGNS).values()} == {"conv"}
    shapes = plain_shapes(both)
    assert len(shapes) == len(set(shapes)) == 2 * len(plain_shapes(stems(stem=("patch",))))
    assert all(is_plain(shape) and shape in both for shape in shapes)
