"""Tokens embedded anew, in numbers; that torch counts the same is in tests/model/layers/test_embed.py."""

import pytest
from factories import backbone
from layer_sizes import macs, params, sizes

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.operators.embed import EMBED
from nas.base.errors import ArchitectureError


def test_costs_are_those_of_a_convolution_between_two_norms():
    fewer = sizes(N=4, D=24, width=32)
    assert macs(EMBED.cost(fewer)) == 4 * 9 * 24 * 32
    assert params(EMBED.cost(fewer)) == 2 * 24 + 9 * 24 * 32 + 32 + 2 * 32


def test_memory_is_that_of_the_tokens_and_their_norms():
    assert EMBED.memory(sizes(N=4, width=24), 2) == 2 * (16 * 24 + 4 * 24)
    assert EMBED.memory(sizes(N=4, D=8, width=96), 2) == 2 * 2 * (4 * 96 + 4)
    assert EMBED.memory(sizes(N=4, D=2, width=2), 2) == 2 * (16 * 2 + 2 * 16)


@pytest.mark.parametrize(("arriving", "halved"), [(3136, 784), (196, 49), (49, 16), (9, 4), (4, 1)])
def test_sides_halve_rounded_up_and_do_nothing_else(arriving, halved):
    assert EMBED.broken(halved, True, arriving) == ""
    for other in (halved + 2 * round(halved**0.5) + 1, 1 if halved > 1 else 0):
        expected = f"embed halves the sides of the grid: {arriving} tokens become {halved}, not {other} (C18)"
        assert EMBED.broken(other, True, arriving) == expected


def test_networks_without_the_right_count_are_refused():
    first = LayerChoice(num_tokens=49, num_heads=1, mlp_ratio=1)
    right, wrong = (LayerChoice(num_tokens=n, reducer="embed", num_heads=1, mlp_ratio=1) for n in (16, 9))
    Architecture(embed_dim=8, layers=(first, right))
    with pytest.raises(ArchitectureError, match=r"layer 1: embed halves .* 49 tokens become 16, not 9 \(C18\)"):
        Architecture(embed_dim=8, layers=(first, wrong))


def test_backbones_with_other_tokens_than_patches_are_refused():
    assert EMBED.refused(backbone(class_token=False)) == ""
    for fixed in (backbone(), backbone(class_token=False, reg_tokens=1)):
        assert "needs class_token false and no reg_tokens" in EMBED.refused(fixed)


def test_no_matrix_widens_where_the_reducer_does():
    embed, pool = (
        LayerChoice(num_tokens=4, reducer=name, embed_dim=16, num_heads=1, mlp_ratio=1) for name in ("embed", "pool")
    )
    assert (embed.widens, pool.widens) == (False, True)
    assert not LayerChoice(num_tokens=4, reducer="pool", num_heads=1, mlp_ratio=1).widens
