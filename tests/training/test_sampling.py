import pytest
from small_runs import tiny_space

from nas import cost
from nas.training.sampling import sandwich


def test_the_first_two_are_the_largest_and_the_smallest():
    space = tiny_space()
    drawn = sandwich(space, seed=0, step=3, num_random=2)
    assert len(drawn) == 4
    assert drawn[:2] == (space.largest(), space.smallest())
    assert all(architecture in space for architecture in drawn)


def test_no_random_ones_are_drawn_where_none_are_asked_for():
    space = tiny_space()
    assert sandwich(space, seed=0, step=0, num_random=0) == (space.largest(), space.smallest())


def test_a_step_is_a_function_of_space_seed_and_step():
    space = tiny_space()

    def drawn(seed, step):
        return sandwich(space, seed=seed, step=step, num_random=4)

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(seed, step) for seed in range(3) for step in range(3)}) == 9


@pytest.mark.parametrize("seed", [0, 1])
def test_random_ones_are_spread_over_the_whole_range_of_costs(seed):
    space = tiny_space()
    low, high = space.macs_range()
    drawn = [a for step in range(100) for a in sandwich(space, seed=seed, step=step, num_random=2)[2:]]
    shares = [(cost.macs(a, space.backbone) - low) / (high - low) for a in drawn]
    quarters = [sum(q / 4 <= share < (q + 1) / 4 for share in shares) for q in range(4)]
    assert min(quarters) >= 0.1 * len(shares)
