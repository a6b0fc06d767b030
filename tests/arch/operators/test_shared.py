import pytest
from layer_sizes import macs, place, sizes

from nas.arch.operator import Rules
from nas.arch.operators import HALLUCINATION
from nas.arch.operators.dynamic import DYNAMIC
from nas.arch.operators.shared import SHARED


def test_it_has_values_alone():
    D, H, d, T = 24, 3, 8, 17
    assert macs(DYNAMIC.cost(sizes())) - macs(SHARED.cost(sizes())) == 2 * T * D * H * d + H * T * T * d


@pytest.mark.parametrize("variant", HALLUCINATION)
def test_derived_maps_are_made_anew_and_cost_what_they_cost_a_dynamic_layer(variant):
    anew = sizes(derived=1, variant=variant)
    (dynamic,) = (operation for operation in DYNAMIC.cost(anew) if operation[0] == "hallucinate")
    assert dynamic in SHARED.cost(anew)
    assert max(v for _, v in SHARED.memory(anew, 1)) > max(v for _, v in SHARED.memory(sizes(), 1))


NO_PROVIDER = "shared attention without a dynamic provider at this token count (C1, C2)"


@pytest.mark.parametrize(
    ("rules", "changes", "words"),
    [
        (None, {}, ""),
        (None, {"shared_heads": 0}, NO_PROVIDER),
        (None, {"heads": 2}, "2 heads share the maps of 3 (C3)"),
        (None, {"derived": 1}, "1 heads derived from a provider that derives 0 (C6)"),
        (None, {"derived": 1, "shared_derived": 1}, ""),
        (None, {"derived": 0, "shared_derived": 1}, ""),
        (Rules(), {}, ""),
        (Rules(), {"tokens": 9}, "tokens fall from 16 to 9, so no maps can be shared (C2)"),
        (Rules(max_shared=0), {"shares_left": 0}, "shared needs a rules.max_shared of at least 1 (C4)"),
        (
            Rules(max_shared=3),
            {"shares_left": 0, "shared_heads": 0},
            "shared needs a dynamic layer before it, with at most 2 shared ones in between (C1, C4, C5)",
        ),
        (Rules(), {"heads": 2}, "2 heads share the maps of 3 (C3)"),
    ],
)
def test_where_it_may_stand(rules, changes, words):
    assert SHARED.broken(place(rules, **changes)) == words


def test_heads_are_derived_as_the_provider_derives_them_or_not_at_all():
    assert [SHARED.derived(wanted, provided=1) for wanted in (0, 1, 2)] == [0, 1, 0]
    assert SHARED.derived(0, provided=0) == 0
