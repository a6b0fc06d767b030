import pytest
from layer_sizes import macs, params, place, sizes

from nas.arch.operator import Rules
from nas.arch.operators.dynamic import DYNAMIC
from nas.arch.operators.static import STATIC


def test_a_map_a_head_stands_for_queries_keys_and_their_product():
    D, H, d, T = 24, 3, 8, 17
    saved = macs(DYNAMIC.cost(sizes())) - macs(STATIC.cost(sizes()))
    assert saved == 2 * T * D * H * d + H * T * T * d
    assert params(STATIC.cost(sizes())) == 2 * D * H * d + H * d + D + H * T * T


def test_memory_holds_no_map():
    many = sizes(N=196, T=197)
    assert max(values for _, values in STATIC.memory(many, 1)) < 3 * 197 * 197
    assert STATIC.features(sizes()) == {"maps static": 3 * 17 * 17}


@pytest.mark.parametrize(
    ("rules", "changes", "words"),
    [
        (Rules(), {}, ""),
        (Rules(), {"tokens": 9}, "static behind a reduction; allow it by rules.static_after_reduction (C7)"),
        (Rules(static_after_reduction=True), {"tokens": 9}, ""),
        (Rules(static_after_reduction=True), {"on_grid": False}, "static behind a glad (C7)"),
        (None, {"tokens": 9, "on_grid": False}, ""),
    ],
)
def test_where_it_may_stand(rules, changes, words):
    assert STATIC.broken(place(rules, **changes)) == words


def test_it_derives_no_heads():
    assert STATIC.derived(2, 2) == 0
