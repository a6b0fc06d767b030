from itertools import product

from factories import backbone
from layer_sizes import macs, params

from nas.arch.parts.low_rank import feed_forward_features, feed_forward_memory, feed_forward_operations, stored_rank

PATCHES = 16  # and a class token


def test_a_rank_is_kept_where_it_saves():
    for ratio, rank in product((0.5, 1.0, 2.0, 3.0, 4.0), (0.25, 0.5, 0.75, 0.8, 1.0)):
        whole, factors = (macs(feed_forward_operations(ratio, r, PATCHES, 240, False, backbone())) for r in (1.0, rank))
        assert stored_rank(ratio, rank) == (rank if factors < whole else 1.0), (ratio, rank)


def test_cost_of_whole_matrices_and_of_factors():
    whole = ("mlp", 17 * 2 * 24 * 48, 2 * 24 * 48 + 48 + 24)
    assert feed_forward_operations(2.0, 1.0, PATCHES, 24, False, backbone()) == (whole,)
    convolution = ("mlp_conv", 9 * 16 * 48, 10 * 48)
    assert feed_forward_operations(2.0, 1.0, PATCHES, 24, True, backbone()) == (whole, convolution)
    weights = 24 * 48 + 48 * 12 + 12 * 24
    (factors,) = feed_forward_operations(2.0, 0.5, PATCHES, 24, False, backbone())
    assert factors == ("mlp", 17 * weights, weights + 48 + 24)
    assert params((factors,)) == weights + 72


def test_memory_is_that_of_the_hidden_layer_or_the_result():
    wide, narrow = (feed_forward_memory(ratio, 1.0, PATCHES, 24, False, backbone(), 2) for ratio in (4.0, 0.5))
    one = 2 * 17 * 24
    assert wide == 2 * one + 8 * one
    assert narrow == 2 * one + one // 2 + one
    assert feed_forward_memory(4.0, 0.5, PATCHES, 24, False, backbone(), 2) == wide
    assert feed_forward_memory(4.0, 1.0, PATCHES, 24, True, backbone(), 2) == wide + 2 * 16 * 96


def test_factors_have_a_speed_of_their_own():
    assert feed_forward_features(1.0, 7) == {"mlp full": 7}
    assert feed_forward_features(0.5, 7) == {"mlp factors": 7, "layers of factors": 1}
