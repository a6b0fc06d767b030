"""The reducers on a grid: `pool` and `conv_pool`."""

from layer_sizes import macs, params, sizes

from nas.arch.operators.conv_pool import CONV_POOL
from nas.arch.operators.pool import POOL

FEWER = sizes(N=4)


def test_an_average_is_free():
    assert POOL.cost(FEWER) == ()


def test_the_correction_is_a_filter_a_channel_over_what_arrives():
    assert (macs(CONV_POOL.cost(FEWER)), params(CONV_POOL.cost(FEWER))) == (9 * 24 * 16, 9 * 24)


def test_memory_is_that_of_the_grids():
    assert POOL.memory(FEWER, 2) == 2 * 16 * 24
    assert POOL.memory(sizes(N=9), 2) == 2 * (9 + 10) * 24
    assert CONV_POOL.memory(FEWER, 2) == 2 * 2 * 16 * 24
