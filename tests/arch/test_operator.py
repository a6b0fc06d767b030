"""What operators are made of."""

from itertools import product

from layer_sizes import sizes

from nas.arch.operator import is_square
from nas.arch.operators import ATTENTION, REDUCERS
from nas.arch.operators.dynamic import DYNAMIC


def test_squares():
    assert [n for n in range(1, 200) if is_square(n)] == [side**2 for side in range(1, 15)]


def test_a_layer_exports_maps_or_logits():
    for maps, logits in product([False, True], repeat=2):
        assert sizes(exports_maps=maps, exports_logits=logits).exports is (maps or logits)


def test_heads_that_cannot_be_derived_are_not():
    for kind, wanted, provided in product(ATTENTION.values(), range(3), range(3)):
        derived = kind.derived(wanted, provided)
        assert derived in (0, wanted)
        assert kind.derives or derived == 0
        assert kind.derived(derived, provided) == derived


def test_operators_are_values():
    assert DYNAMIC is ATTENTION["dynamic"]
    assert len({*ATTENTION.values(), *REDUCERS.values()}) == len(ATTENTION) + len(REDUCERS)
