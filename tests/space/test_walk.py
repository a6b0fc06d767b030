"""Legal sequences of layers: their number and their extremes, against whole listings, under every rule."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from factories import backbone
from small_spaces import chains, every_choice, listed, only_half, space, tiny

from nas.arch import cost
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operator import Rules
from nas.space.constraints import Constraints

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
    # 3 numbers of heads; hidden width 0.5 with 2 different ranks (C14), 2.0 with 3
    assert space(domain, depth=(24,), embed_dim=(24,)).size() == (3 * 5) ** 24


RULES = [
    Rules(max_shared=0),
    Rules(max_shared=1),
    Rules(max_shared=3),
    Rules(max_reductions=0),
    Rules(max_reductions=1),
    Rules(static_after_reduction=True),
    Rules(),
]


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_size_and_extremes_equal_those_of_the_listing_under_every_rule(rules, class_token):
    searched = chains(rules=rules, backbone=backbone(class_token=class_token))
    members = list(listed(searched))
    assert searched.size() == len(members) == len({a.digest for a in members}) > 100
    costs = [cost.macs(a, searched.backbone) for a in members]
    parameters = [cost.params(a, searched.backbone) for a in members]
    assert searched.macs_range() == (min(costs), max(costs))
    assert searched.params_range() == (min(parameters), max(parameters))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_decide_membership(rules):
    searched, free = (
        chains(rules=rules),
        chains(rules=Rules(max_shared=3, max_reductions=3, static_after_reduction=True)),
    )
    members = set(listed(searched))
    assert {a for a in listed(free) if a in searched} == members < set(listed(free))


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
    drawn = {wider.sample(rng) for _ in range(2_000)}
    assert {a for a in drawn if a in searched} == drawn & members
    assert 0 < len(drawn & members) < len(drawn)


def test_why_not_gives_the_reasons():
    layer = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2)
    wrong = Architecture(embed_dim=40, layers=(layer,) * 9)
    assert SPACE.why_not(wrong) == [
        "embed_dim 40 is not one of [16, 24]",
        "depth 9 is not one of [2, 3, 4]",
    ]
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
