from fractions import Fraction
from itertools import pairwise

import pytest
from layer_sizes import sizes

from nas.arch.operators import HALLUCINATION
from nas.arch.operators.hallucination import by_logits, convolved, hallucinated_heads, in_chunks, operations


def test_heads_are_whole_and_one_stays_real():
    for heads in range(1, 13):
        exact = [Fraction(i, 60) for i in range(60)]
        found = [hallucinated_heads(heads, float(ratio)) for ratio in exact]
        assert found == [min(int(heads * ratio), heads - 1) for ratio in exact]
        assert all(hallucinated_heads(heads, derived / heads) == derived for derived in range(heads))


@pytest.mark.parametrize(
    ("variant", "macs", "params"),
    [("copy", 0, 1), ("mix", 2 * 17 * 17, 2), ("mix_conv", 2 * 17 * 17 + 9 * 16 * 16, 2 + 9)],
)
def test_cost_of_one_head_derived_from_two(variant, macs, params):
    assert operations(sizes(derived=1, variant=variant)) == (("hallucinate", macs, params),)


def test_nothing_is_derived_for_nothing():
    assert operations(sizes()) == ()
    assert convolved(sizes()) == 0
    assert [name for name, _ in by_logits(sizes(), 2)] == ["softmax", "mix_values"]


def test_ranks_follow_the_cost():
    costs = [operations(sizes(derived=1, variant=name))[0][1:] for name in HALLUCINATION]
    assert all(cheap < dear for cheap, dear in pairwise(costs))


@pytest.mark.parametrize("variant", HALLUCINATION)
def test_more_images_need_more_at_once(variant):
    s = sizes(derived=2, variant=variant)
    peaks = [max(values for _, values in by_logits(s, n)) for n in (1, 2, 4)]
    assert all(2 * few <= many for few, many in pairwise(peaks))


def test_chunks_hold_one_part_and_all_results():
    def stages(n: int):
        yield "step", 100 * n

    assert list(in_chunks(stages, 4, 4, 7)) == [("step", 400)]
    chunked = list(in_chunks(stages, 5, 2, 7))
    assert chunked[0] == ("step", 200)  # the first part, before there are results
    assert ("mix_values", (2 + 5) * 7) in chunked
    assert {values for name, values in chunked[2:]} == {(5 + 2) * 7 + 200, (5 + 2) * 7 + 100}
