from layer_sizes import macs, params, sizes

from nas.arch.operators.glad import GLAD

FEWER = sizes(N=6)


def test_queries_look_at_all_tokens_and_gather_from_them():
    assert macs(GLAD.cost(FEWER)) == 2 * 6 * 16 * 24
    assert params(GLAD.cost(FEWER)) == 6 * 24 + 3 * 24  # gain, scale and shift


def test_any_number_may_be_left_anywhere():
    assert not GLAD.keeps_grid
    assert all(GLAD.broken(tokens, on_grid) == "" for tokens in (6, 9) for on_grid in (True, False))


def test_memory_holds_all_tokens_normalised():
    assert GLAD.memory(FEWER, 2) >= 2 * (17 * 24 + 6 * 16)
