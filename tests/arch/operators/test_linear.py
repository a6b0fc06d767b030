from itertools import product

from factories import backbone
from layer_sizes import params, place, sizes

from nas.arch.operator import Rules
from nas.arch.operators.dynamic import DYNAMIC
from nas.arch.operators.linear import LINEAR

MAPS = ("scores", "mix_values", "conv_values")


def core(kind, s) -> int:
    """MACs that are not projections."""
    return sum(macs for name, macs, _ in kind.cost(s) if name in MAPS)


def test_twice_the_tokens_cost_twice_as_much():
    assert core(LINEAR, sizes(N=32, T=32)) == 2 * core(LINEAR, sizes(N=16, T=16))


def test_it_may_stand_where_it_is_cheaper_than_dynamic_attention():
    for head_dim, tokens in product((8, 16, 32), range(4, 50)):
        fixed = backbone(head_dim=head_dim, class_token=False)
        broken = LINEAR.broken(place(tokens=tokens, space=(Rules(), fixed)))
        s = sizes(d=head_dim, N=tokens, T=tokens)
        assert (broken == "") == (core(LINEAR, s) < core(DYNAMIC, s)), (head_dim, tokens)


def test_rules_of_a_space_are_none_of_a_network():
    assert LINEAR.broken(place(tokens=4)) == ""
    words = "linear attention pays from 13 tokens on, here are 5 (C8)"
    assert LINEAR.broken(place(Rules(), tokens=4)) == words


def test_off_the_grid_nothing_is_convolved():
    on, off = (sizes(on_grid=on_grid) for on_grid in (True, False))
    assert core(LINEAR, on) - core(LINEAR, off) == 9 * 16 * 3 * 8
    assert params(LINEAR.cost(on)) - params(LINEAR.cost(off)) == 9 * 3


def test_many_images_are_dealt_with_a_few_at_a_time():
    s = sizes(N=196, T=197, D=192, d=64)
    one, many = (max(values for _, values in LINEAR.memory(s, B)) for B in (1, 64))
    assert many < 64 * one
    assert many >= 2 * 64 * 197 * 192  # all results, and their concatenation


def test_it_derives_no_heads_and_writes_no_maps():
    assert LINEAR.derived(1, 1) == 0
    assert LINEAR.features(sizes()) == {}
