"""Architectures as flat parameters, and what becomes of parameters that contradict each other."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from small_spaces import chains, every_choice, growing, listed, only_half, space, stems, tiny

from nas.arch import cost
from nas.arch.architecture import Architecture
from nas.arch.operator import Rules
from nas.base.errors import ArchitectureError, SearchSpaceError
from nas.space.constraints import Constraints
from nas.space.domain import GENES, LayerDomain
from nas.space.space import SearchSpace

SPACE = space()
BOUNDED = space(constraints=Constraints(max_macs=120_000, max_params=6_000))
JOINT = SearchSpace.from_yaml(Path(__file__).parents[2] / "search_spaces" / "joint_tiny.yaml")
FROM_ANYTHING = settings(
    max_examples=30, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def values_of(searched: SearchSpace) -> st.SearchStrategy:
    choices = {name: st.sampled_from(values) for name, values in searched.choices().items()}
    return st.fixed_dictionaries(choices)


@pytest.mark.parametrize("searched", [SPACE, JOINT, BOUNDED, stems()], ids=["free", "joint", "bounded", "stems"])
def test_decode_inverts_encode(searched):
    rng = np.random.default_rng(0)
    for _ in range(50 if searched is BOUNDED else 150):
        architecture = searched.sample(rng)
        params = searched.encode(architecture)
        assert searched.decode(params) == architecture
        assert params.keys() == searched.choices().keys()
        assert all(type(value) in (int, float, str, bool) for value in params.values())


@pytest.mark.parametrize("make", [tiny, chains, only_half, stems, growing])
def test_decode_inverts_encode_on_every_architecture(make):
    searched = make()
    assert [a for a in set(listed(searched)) if searched.decode(searched.encode(a)) != a] == []


@st.composite
def any_space(draw: st.DrawFn) -> SearchSpace:
    """Some of the choices of every gene, in any order, others in every layer."""
    full, domains = every_choice(), []
    for _ in range(3):
        genes = {}
        for gene in GENES:
            values = getattr(full, gene)
            genes[gene] = draw(st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True))
        domains.append(LayerDomain(**{gene: tuple(values) for gene, values in genes.items()}))
    try:
        return space(layers=tuple(domains), depth=tuple(draw(st.permutations((1, 2, 3)))))
    except SearchSpaceError:
        reject()


@FROM_ANYTHING
@given(any_space(), st.integers(0, 2**32 - 1))
def test_decode_inverts_encode_whatever_the_order_of_the_choices(searched, seed):
    rng = np.random.default_rng(seed)
    for _ in range(5):
        architecture = searched.sample(rng)
        assert searched.decode(searched.encode(architecture)) == architecture
        assert searched.sample_by_gene(rng) in searched
        drawn = {name: values[rng.integers(len(values))] for name, values in searched.choices().items()}
        assert searched.decode(drawn) in searched


@pytest.mark.parametrize("ratios", [*permutations((0.0, 0.34, 0.7)), (0.5, 0.0), (0.7, 0.34)], ids=str)
def test_decode_inverts_encode_on_every_chain_that_shares(ratios):
    """How a ratio is spelled depends on what the provider derives, and on which ratio comes first."""
    domain = every_choice(
        num_tokens=(16,),
        attention=("shared", "dynamic"),
        hallucination_ratio=ratios,
        hallucination=("mix",),
        num_heads=(3, 1, 2),
        ffn_rank=(1.0,),
        mlp_ratio=(1.0,),
    )
    searched = space(domain, embed_dim=(8,), depth=(3,))
    members = set(listed(searched))
    assert len(members) == searched.size()
    assert [a for a in members if searched.decode(searched.encode(a)) != a] == []


@FROM_ANYTHING
@given(values_of(SPACE))
def test_anything_decodes_into_the_space(params):
    architecture = SPACE.decode(params)
    assert architecture in SPACE
    assert SPACE.decode(SPACE.encode(architecture)) == architecture


@FROM_ANYTHING
@given(values_of(JOINT))
def test_anything_decodes_into_a_large_space(params):
    architecture = JOINT.decode(params)
    assert architecture in JOINT
    assert JOINT.decode(JOINT.encode(architecture)) == architecture


@FROM_ANYTHING
@given(values_of(BOUNDED))
def test_anything_decodes_into_the_constraints(params):
    architecture = BOUNDED.decode(params)
    assert architecture in BOUNDED
    assert cost.macs(architecture, BOUNDED.backbone) <= 120_000
    assert cost.params(architecture, BOUNDED.backbone) <= 6_000


def test_decode_keeps_what_is_legal():
    changes = {"embed_dim": 16, "layers.01.mlp_ratio": 0.5, "layers.02.ffn_rank": 0.5, "depth": 3}
    architecture = SPACE.decode(SPACE.encode(SPACE.largest()) | changes)
    assert (architecture.embed_dim, architecture.depth) == (16, 3)
    assert [layer.mlp_ratio for layer in architecture.layers] == [2.0, 0.5, 2.0]
    assert [layer.ffn_rank for layer in architecture.layers] == [1.0, 1.0, 0.5]


PLAIN = {
    "num_tokens": 16,
    "reducer": "pool",
    "attention": "dynamic",
    "hallucination_ratio": 0.0,
    "num_heads": 2,
    "ffn_rank": 1.0,
    "mlp_ratio": 2.0,
}
DYNAMIC, STATIC, SHARED, LINEAR = ({"attention": kind} for kind in ("dynamic", "static", "shared", "linear"))
DERIVED = {"num_heads": 3, "hallucination_ratio": 0.34, "hallucination": "mix"}


@pytest.mark.parametrize(
    ("rule", "changes", "repaired"),
    [
        ("C1 no layer before", {0: SHARED}, {0: DYNAMIC}),
        ("C1 static provider", {0: STATIC, 1: SHARED}, {0: STATIC, 1: DYNAMIC}),
        ("C5 linear provider", {0: DYNAMIC, 1: LINEAR, 2: SHARED}, {1: LINEAR, 2: DYNAMIC}),
        (
            "C2 after pooling",
            {1: {**SHARED, "num_tokens": 9}},
            {1: {**DYNAMIC, "num_tokens": 9, "reducer": "pool"}, 2: {"num_tokens": 9}},
        ),
        (
            "C3 heads",
            {1: {**SHARED, "num_heads": 3}, 2: {**SHARED, "num_heads": 1}},
            {1: {**SHARED, "num_heads": 2}, 2: {**SHARED, "num_heads": 2}},
        ),
        ("C4 chain", {1: SHARED, 2: SHARED, 3: SHARED}, {1: SHARED, 2: SHARED, 3: DYNAMIC}),
        (
            "C6 one head",
            {0: {"num_heads": 1, "hallucination_ratio": 0.7, "hallucination": "mix_conv"}},
            {0: {"num_heads": 1, "hallucination_ratio": 0.0, "hallucination": None}},
        ),
        (
            "C6 whole heads",
            {0: {"num_heads": 3, "hallucination_ratio": 0.7, "hallucination": "mix_conv"}},
            {0: {"num_heads": 3, "hallucination_ratio": 2 / 3, "hallucination": "mix_conv"}},
        ),
        ("C6 static", {0: {**STATIC, **DERIVED}}, {0: {**STATIC, "num_heads": 3}}),
        ("C6 linear", {0: {**LINEAR, **DERIVED}}, {0: {**LINEAR, "num_heads": 3}}),
        (
            "5.3 maps derived anew",
            {0: DERIVED, 1: {**SHARED, **DERIVED, "hallucination": "copy"}},
            {
                0: {**DERIVED, "hallucination_ratio": 1 / 3},
                1: {**SHARED, **DERIVED, "hallucination_ratio": 1 / 3, "hallucination": "copy"},
            },
        ),
        (
            "5.3 as many as the provider derives, or none",
            {0: DERIVED, 1: {**SHARED, **DERIVED, "hallucination_ratio": 0.7}, 2: {**SHARED, **DERIVED}},
            {
                0: {**DERIVED, "hallucination_ratio": 1 / 3},
                1: {**SHARED, "num_heads": 3},
                2: {**SHARED, **DERIVED, "hallucination_ratio": 1 / 3},
            },
        ),
        (
            "C7 static after pooling",
            {1: {"num_tokens": 9}, 2: STATIC},
            {1: {"num_tokens": 9, "reducer": "pool"}, 2: {"num_tokens": 9, **DYNAMIC}},
        ),
        (
            "C8 linear of few tokens",
            {0: {"num_tokens": 9, **LINEAR}, 1: LINEAR},
            {0: {"num_tokens": 9, "reducer": "pool", **DYNAMIC}, 1: {"num_tokens": 9, **DYNAMIC}},
        ),
        (
            "C10 pool to no square",
            {1: {"num_tokens": 6, "reducer": "conv_pool"}},
            {1: {"num_tokens": 6, "reducer": "glad"}, 2: {"num_tokens": 6}},
        ),
        (
            "C10 pool behind glad",
            {1: {"num_tokens": 9, "reducer": "glad"}, 2: {"num_tokens": 4, "reducer": "pool"}},
            {1: {"num_tokens": 9, "reducer": "glad"}, 2: {"num_tokens": 4, "reducer": "glad"}, 3: {"num_tokens": 4}},
        ),
        (
            "C11 tokens grow",
            {0: {"num_tokens": 9}, 1: {"num_tokens": 16}, 2: {"num_tokens": 4}},
            {
                0: {"num_tokens": 9, "reducer": "pool"},
                1: {"num_tokens": 9},
                2: {"num_tokens": 4, "reducer": "pool"},
                3: {"num_tokens": 4},
            },
        ),
        (
            "C12 reduced twice already",
            {i: {"num_tokens": n, "reducer": "glad"} for i, n in enumerate((9, 6, 4))},
            {
                0: {"num_tokens": 9, "reducer": "glad"},
                1: {"num_tokens": 6, "reducer": "glad"},
                2: {"num_tokens": 6},
                3: {"num_tokens": 6},
            },
        ),
        ("C14 no gain", {0: {"mlp_ratio": 0.5, "ffn_rank": 0.5}}, {0: {"mlp_ratio": 0.5, "ffn_rank": 1.0}}),
    ],
)
def test_decode_repairs_what_cannot_be(rule, changes, repaired):
    searched = space(rules=Rules(max_reductions=2))
    params = {name: values[0] for name, values in searched.choices().items()} | {"depth": 4, "embed_dim": 24}
    for i in range(4):
        params |= {f"layers.{i:02d}.{gene}": value for gene, value in (PLAIN | changes.get(i, {})).items()}
    architecture = searched.decode(params)
    assert architecture in searched
    tokens = 16
    for i, layer in enumerate(architecture.layers):
        expected = PLAIN | {"num_tokens": tokens, "reducer": None, "hallucination": None} | repaired.get(i, {})
        tokens = layer.num_tokens
        assert {gene: getattr(layer, gene) for gene in expected} == expected, rule


def test_decode_names_everything_that_is_not_of_the_space():
    with pytest.raises(ArchitectureError) as error:
        SPACE.decode(SPACE.encode(SPACE.smallest()) | {"embed_dim": 17, "layers.00.speed": 1, "depth": None})
    for words in ("embed_dim: 17 is not one of [16, 24]", "'layers.00.speed'", "depth: None"):
        assert words in error.value.message


def test_parameters_with_one_choice_may_be_left_out():
    searched = tiny(depth=(2,))
    params = searched.encode(searched.largest())
    del params["depth"], params["embed_dim"]
    assert searched.decode(params) == searched.largest()
    with pytest.raises(ArchitectureError, match="num_heads: None"):
        searched.decode({k: v for k, v in params.items() if k != "layers.00.num_heads"})


def test_encode_refuses_what_is_not_of_the_space():
    with pytest.raises(ArchitectureError, match="embed_dim 32 is not one of"):
        SPACE.encode(Architecture(embed_dim=32, layers=SPACE.largest().layers))


@pytest.mark.parametrize(("bound", "words"), [({}, "more than 5 states"), ({"max_memory": 1e9}, "more than 4 states")])
def test_a_space_that_nobody_could_look_through_is_refused_at_once(monkeypatch, bound, words):
    monkeypatch.setattr("nas.space.genome.MOST_STATES", 5)
    monkeypatch.setattr("nas.space.genome.MOST_WITH_MEMORY", 4)
    with pytest.raises(SearchSpaceError, match=words) as caught:
        space(constraints=Constraints(**bound))
    assert "max_shared" in caught.value.hint


def test_what_exceeds_a_bound_is_repaired_to_many_networks_just_within_it():
    free = SearchSpace.from_yaml(Path(__file__).parents[2] / "search_spaces" / "digits.yaml")
    draws = [free.sample(np.random.default_rng(seed)) for seed in range(60)]
    bound = float(np.quantile([cost.macs(a, free.backbone) for a in draws], 0.3))
    space = replace(free, constraints=Constraints(max_macs=bound))
    repaired = [space.repair(a) for a in draws if not space.within_constraints(a)]
    used = [cost.macs(a, free.backbone) / bound for a in repaired]
    assert max(used) <= 1
    assert np.median(used) > 0.75
    assert len(set(repaired)) > 0.95 * len(repaired)
    assert all(space.repair(a) == a and space.decode(space.encode(a)) == a for a in repaired)


def test_the_stem_is_a_gene_only_where_there_is_another():
    both = stems()
    assert both.choices()["stem"] == ("patch", "conv")
    assert "stem" not in SPACE.choices()
    conv = replace(both.smallest(), stem="conv")
    assert both.decode(both.encode(conv)) == conv
    assert stems(stem=("patch",)).why_not(conv) == ["stem conv is not one of ['patch']"]
    assert stems(stem=("conv",)).decode({"embed_dim": 8, "depth": 1} | only_first(both)).stem == "conv"


def only_first(searched):
    return {name: values[0] for name, values in searched.choices().items() if name.startswith("layers.")}
