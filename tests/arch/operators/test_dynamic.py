import pytest
from layer_sizes import macs, params, sizes

from nas.arch.operators import HALLUCINATION
from nas.arch.operators.dynamic import DYNAMIC


def named(s) -> dict[str, int]:
    return {name: macs for name, macs, _ in DYNAMIC.cost(s)}


def peak(s, B: int = 1) -> int:
    return max(values for _, values in DYNAMIC.memory(s, B))


def test_cost_is_that_of_four_projections_and_two_products():
    D, H, d, T = 24, 3, 8, 17
    assert macs(DYNAMIC.cost(sizes())) == T * D * 4 * H * d + 2 * H * T * T * d
    assert params(DYNAMIC.cost(sizes())) == 4 * D * H * d + 3 * H * d + D


@pytest.mark.parametrize("variant", HALLUCINATION)
def test_a_derived_head_saves_its_queries_and_keys(variant):
    whole, derived = named(sizes()), named(sizes(derived=1, variant=variant))
    assert whole["qkv"] - derived["qkv"] == 2 * 17 * 24 * 8
    assert whole["mix_values"] == derived["mix_values"]


def test_copies_compute_their_scores_again_unless_maps_are_written():
    scores = named(sizes())["scores"]
    assert named(sizes(derived=1))["scores"] == scores
    assert named(sizes(derived=1, exports_logits=True))["scores"] == scores * 2 // 3
    assert named(sizes(derived=1, variant="mix"))["scores"] == scores * 2 // 3


@pytest.mark.parametrize("exports", ["exports_maps", "exports_logits"])
def test_what_is_exported_is_in_memory(exports):
    assert peak(sizes(**{exports: True})) - peak(sizes()) >= 3 * 17 * 17


@pytest.mark.parametrize("changes", [{}, {"derived": 2}, {"exports_maps": True}])
def test_memory_grows_with_the_images(changes):
    assert peak(sizes(**changes), 4) > 2 * peak(sizes(**changes), 1)


def test_time_goes_to_maps_that_are_written_or_are_not():
    entries = 17 * 17
    assert DYNAMIC.features(sizes()) == {"softmax fused": 3 * entries}
    assert DYNAMIC.features(sizes(exports_maps=True)) == {"softmax written": 3 * entries}
    derived = {"softmax written": 2 * entries, "maps derived": entries}
    assert DYNAMIC.features(sizes(derived=1)) == derived


def test_it_may_stand_anywhere_and_be_shared():
    assert DYNAMIC.broken is None
    assert DYNAMIC.provides
    assert [DYNAMIC.derived(wanted, provided=1) for wanted in (0, 1, 2)] == [0, 1, 2]
