"""Legal sequences of layers: their number and their extremes, against whole listings, under every rule."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from factories import backbone
from small_spaces import chains, every_choice, growing, listed, only_half, space, tiny

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.arch.operators import ATTENTION
from nas.base.errors import ArchitectureError
from nas.space.constraints import Constraints
from nas.space.domain import GENES, LayerDomain, attention_choices, feed_forwards, structure_of, with_feed_forward
from nas.space.walk import LegalSequences, State, broken_rule, why_empty

SPACE = space()

BOUNDED = space(constraints=Constraints(max_macs=120_000, max_params=6_000))


@cache
def everything() -> tuple[Architecture, ...]:
    return tuple(dict.fromkeys(listed(tiny())))


def macs(architecture: Architecture) -> int:
    return cost.macs(architecture, backbone())


def params(architecture: Architecture) -> int:
    return cost.params(architecture, backbone())


# --- membership, size, extremes -----------------------------------------------------------------------------


def test_size_equals_listing():
    assert tiny().size() == len(everything()) > 300
    assert tiny(depth=(2,)).size() == sum(a.depth == 2 for a in everything())
    assert tiny(embed_dim=(8, 16, 24)).size() == 3 * len(everything())
    digests = {architecture.digest for architecture in everything()}
    assert len(digests) == len(everything())


def test_size_of_a_large_space_is_exact_and_quick():
    domain = every_choice(attention=("dynamic",), num_tokens=(16,), hallucination_ratio=(0.0,))
    # 3 numbers of heads; hidden width 0.5 with 2 different ranks (C14), 2.0 with 3; with and without a convolution
    assert space(domain, depth=(24,), embed_dim=(24,)).size() == (3 * 5 * 2) ** 24


RULES = [
    Rules(max_shared=0),
    Rules(max_shared=1),
    Rules(max_shared=3),
    Rules(max_reductions=0),
    Rules(max_reductions=1),
    Rules(static_after_reduction=True),
    Rules(),
]


@cache
def members_of(rules: Rules, class_token: bool) -> tuple[Architecture, ...]:
    """The chains that rules leave, listed."""
    return tuple(listed(chains(rules=rules, backbone=backbone(class_token=class_token))))


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_size_and_extremes_equal_those_of_the_listing_under_every_rule(rules, class_token):
    searched, members = chains(rules=rules, backbone=backbone(class_token=class_token)), members_of(rules, class_token)
    assert searched.size() == len(members) == len({a.digest for a in members}) > 100
    costs = [cost.macs(a, searched.backbone) for a in members]
    parameters = [cost.params(a, searched.backbone) for a in members]
    assert searched.macs_range() == (min(costs), max(costs))
    assert searched.params_range() == (min(parameters), max(parameters))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_decide_membership(rules):
    searched = chains(rules=rules)
    unruled = set(members_of(Rules(max_shared=3, max_reductions=3, static_after_reduction=True), True))
    assert {a for a in unruled if a in searched} == set(members_of(rules, True)) < unruled


@pytest.mark.parametrize("widths", [(8,), (8, 12, 16)])
def test_size_where_widths_grow(widths):
    searched = growing(embed_dim=widths)
    members = set(listed(searched))
    assert searched.size() == len(members)
    assert len({a.widths for a in members if a.widths[0] < a.widths[-1]}) > 2
    assert all(searched.decode(searched.encode(a)) == a for a in list(members)[::7])
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for draw in (searched.sample, searched.sample_by_gene, searched.sample_stratified) * 60]
    drawn += [searched.mutate(a, rng) for a in drawn]
    assert set(drawn) <= members
    assert {a.widths for a in drawn} == {a.widths for a in members}


def test_size_where_maps_are_never_shared_as_they_are():
    members = set(listed(only_half()))
    assert only_half().size() == len(members)
    shared = [la for a in members for la in a.layers if la.attention == "shared"]
    assert {(la.num_heads, la.num_hallucinated) for la in shared} == {(1, 0), (2, 1)}


def test_membership_is_that_of_the_listing():
    searched = tiny()
    assert all(a in searched for a in everything())
    members = set(everything())
    rng = np.random.default_rng(0)
    wider = space(every_choice(mlp_ratio=(1.0,)), depth=(1, 2), embed_dim=(8,))
    drawn = {wider.sample(rng) for _ in range(500)}
    assert {a for a in drawn if a in searched} == drawn & members
    assert 0 < len(drawn & members) < len(drawn)


def test_why_not_gives_the_reasons():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    wrong = Architecture(embed_dim=40, layers=(layer,) * 9)
    assert SPACE.why_not(wrong) == ["embed_dim 40 is not one of [16, 24]", "depth 9 is not one of [2, 3, 4]"]
    unpooled = Architecture(embed_dim=24, layers=(replace(layer, num_tokens=4),) * 2)
    assert SPACE.why_not(unpooled) == ["layer 0: a reducer is present exactly where num_tokens falls"]
    assert BOUNDED.why_not(SPACE.largest())[0].startswith("it breaks the constraints: at most 120,000 MACs")
    assert "plain" not in SPACE
    assert SPACE.why_not(SPACE.largest()) == []


def test_extremes_equal_those_of_the_listing():
    searched = tiny()
    everywhere = [macs(a) for a in everything()]
    assert searched.macs_range() == (min(everywhere), max(everywhere))
    assert (macs(searched.smallest()), macs(searched.largest())) == searched.macs_range()
    parameters = [params(a) for a in everything()]
    assert searched.params_range() == (min(parameters), max(parameters))
    assert {searched.smallest(), searched.largest()} <= set(everything())


# --- single layers and states --------------------------------------------------------------------------------

FEW = every_choice(num_tokens=(16, 6, 4), num_heads=(1, 2), hallucination_ratio=(0.0, 0.5), mlp_ratio=(1.0,))


def spelled(domain: LayerDomain) -> set[LayerChoice]:
    """Every choice of genes that is a layer at all, in whatever way it is written."""
    choices = set()
    for genes in product(*(((None, *getattr(domain, g)) if g == "reducer" else getattr(domain, g)) for g in GENES)):
        try:
            choices.add(LayerChoice(**dict(zip(GENES, genes, strict=True))))
        except ArchitectureError:
            continue
    return choices


def reached(walk: LegalSequences, seed: int, steps: int = 60) -> list[State]:
    """States on random ways through the layers."""
    rng, states = np.random.default_rng(seed), {walk.start}
    state = walk.start
    for _ in range(steps):
        following = [after for _, after in walk.options(state) if after.layer < len(walk.layers)]
        state = following[rng.integers(len(following))] if following else walk.start
        states.add(state)
    return sorted(states)


@pytest.mark.parametrize(
    "rules", [Rules(), Rules(max_shared=3, max_reductions=1, static_after_reduction=True)], ids=str
)
@pytest.mark.parametrize("ratios", [(0.0, 0.5), (0.5,), (0.0,)])
def test_a_choice_is_an_option_exactly_where_it_breaks_no_rule(rules, ratios):
    domain = replace(FEW, hallucination_ratio=ratios)
    walk = LegalSequences(backbone(), (domain,) * 4, rules)
    choices = spelled(FEW)
    for state in reached(walk, seed=len(ratios)):
        options = {choice for choice, _ in walk.options(state)}
        legal = {choice for choice in choices if not broken_rule(walk, state, choice)}
        assert {structure_of(choice) for choice in legal} == options, state


@pytest.mark.parametrize("make", [tiny, chains, only_half, growing])
def test_counts_are_those_of_the_listing(make):
    searched = make()
    members = list(listed(searched))
    for depth in searched.depth:
        count = sum(a.depth == depth for a in members)
        assert searched.walk.count(searched.walk.start, depth) * len(searched.embed_dim) == count


def test_options_that_lead_nowhere_are_not_alive():
    last = LayerDomain(num_tokens=(4,), reducer=("pool",), num_heads=(1,))
    first = LayerDomain(num_tokens=(16, 6), reducer=("glad",), num_heads=(1,))
    walk = LegalSequences(backbone(), (first, last), Rules())
    assert {choice.num_tokens for choice, _ in walk.options(walk.start)} == {16, 6}
    assert [choice.num_tokens for choice, _ in walk.alive(walk.start, 2)] == [16]


def test_a_width_that_cannot_be_had_becomes_the_next_one():
    searched = growing(depth=(2,), layers=growing().layers[:2])
    for params in (searched.encode(a) for a in list(listed(searched))[::5]):
        for name, values in searched.choices().items():
            assert all(searched.decode(params | {name: value}) in searched for value in values)


def test_why_not_names_the_first_layer_that_breaks_a_rule():
    searched = tiny(depth=(2,))
    legal = next(iter(listed(searched))).layers
    assert searched.walk.why_not(16, legal) == ""
    assert searched.walk.why_not(16, (legal[0], replace(legal[1], num_heads=7))).startswith("layer 1: num_heads 7 ")


def test_nearest_is_the_identity_on_what_is_legal():
    searched, rng = space(), np.random.default_rng(0)
    for _ in range(100):
        layers = searched.sample(rng).layers
        genes = [tuple(getattr(layer, gene) for gene in searched.layers[0].genes) for layer in layers]
        assert searched.walk.nearest(16, genes) == layers


def test_a_space_is_empty_from_the_layer_that_cannot_be_had():
    grown = LayerDomain(num_tokens=(9,), num_heads=(1,))
    walk = LegalSequences(backbone(), (replace(grown, num_tokens=(4,)), grown), Rules())
    assert why_empty(walk, 16, 1) == ""
    assert why_empty(walk, 16, 2) == "layer 1: no choice is legal: num_tokens grows from 4 to 9 (C11)"


def test_attention_is_listed_in_the_order_of_the_domain():
    found = list(dict.fromkeys(attention_choices(FEW, 1)))
    assert list(dict.fromkeys(kind for kind, *_ in found)) == list(ATTENTION)
    assert {(heads, ratio) for kind, heads, ratio, _ in found if kind == "shared"} == {(1, 0.0), (2, 0.0), (2, 0.5)}
    assert {ratio for kind, _, ratio, _ in found if kind in ("static", "linear")} == {0.0}


def test_feed_forwards_are_distinct_and_canonical():
    domain = every_choice(mlp_ratio=(0.5, 2.0), ffn_rank=(0.25, 0.5, 1.0))
    pairs = feed_forwards(domain)
    assert pairs == ((0.5, 0.25), (0.5, 1.0), (2.0, 0.25), (2.0, 0.5), (2.0, 1.0))
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=3.0)
    assert with_feed_forward(layer, 2.0, 0.5) == replace(layer, mlp_ratio=2.0, ffn_rank=0.5)


def _many_layers(count: int, **genes: object) -> LegalSequences:
    domain = LayerDomain(
        **{
            "num_tokens": (16, 9, 4), "attention": ("dynamic", "shared", "linear"), "num_heads": (1, 2, 3),
            "hallucination_ratio": (0.0, 0.5), **genes,
        }
    )  # fmt: skip
    first = replace(domain, attention=("dynamic",))
    return LegalSequences(backbone(), (first, *[domain] * (count - 1)), Rules())


def test_a_hundred_equal_layers_are_listed_as_often_as_ten(monkeypatch):
    listed = []

    def work(count: int) -> int:
        listed.clear()
        walk = _many_layers(count)
        assert walk.total(walk.start, frozenset((count,)))
        return len(listed)

    enumerate_ = LegalSequences._enumerate

    def counted(self, domain, state):
        for option in enumerate_(self, domain, state):
            listed.append(option)
            yield option

    monkeypatch.setattr(LegalSequences, "_enumerate", counted)
    assert work(10) == work(100)


def test_counts_split_by_sharing_are_those_of_all_options():
    walk = _many_layers(4)

    def listing(state, depth):
        if state.layer == depth:
            return 1
        pairs = len(walk.feed_forwards(state.layer))
        return pairs * sum(listing(behind, depth) for _, behind in walk.options(state))

    for depth in (1, 2, 3, 4):
        assert walk.count(walk.start, depth) == listing(walk.start, depth)
    assert walk.total(walk.start, frozenset((2, 4))) == listing(walk.start, 2) + listing(walk.start, 4)


def test_states_are_counted_up_to_a_limit():
    walk = _many_layers(3)
    states = {walk.start}
    count = 0
    for _ in range(3):
        count += len(states)
        states = {behind for state in states for _, behind in walk.options(state)}
    count += len(states)
    assert walk.has_more_states(count - 1, (16,))
    assert not walk.has_more_states(count, (16,))
