"""What a narrow network of a trained start computes once matrices are fitted to what it has of their inputs."""

from dataclasses import replace

import pytest
import torch
from small_runs import digits, one_thread
from small_spaces import tiny_space

from nas.model.cuts import DEPTH, FACTOR, cut_matrices, factor_of
from nas.model.supernet import Supernet
from nas.training.operators.cuts import fit_cuts, fit_depths


def supernet_with(ffn_conv=(False,), **options):
    space = tiny_space()
    space = replace(space, layers=tuple(replace(domain, ffn_conv=ffn_conv) for domain in space.layers))
    return Supernet(replace(space, backbone=replace(space.backbone, **options)), seed=1).eval()


@pytest.mark.parametrize("options", [{}, {"ffn_conv": (True,)}])
def test_factors_are_of_the_inputs_of_the_plain_vit_and_change_nothing_for_it(options):
    supernet = supernet_with(**options)
    pixels = digits().train.normalized(slice(0, 96))
    with torch.no_grad(), one_thread():
        dense = supernet.dense()
        seen = {}
        dense.blocks[1].mlp.fc2.register_forward_pre_hook(lambda _, inputs: seen.update(hidden=inputs[0]))
        before = dense(pixels)
        fit_cuts(supernet, pixels.split(32))
        assert torch.equal(supernet.dense()(pixels), before)
    hidden = seen["hidden"].flatten(0, 1)
    expected = factor_of((hidden.T @ hidden).double())
    found = {name: value for name, value in supernet.state_dict().items() if name.endswith(FACTOR)}
    assert found.keys() == {matrix + FACTOR for matrix in cut_matrices(supernet.space)}
    assert torch.allclose(found["blocks.1.mlp.fc2.factor"], expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


@pytest.mark.parametrize("options", [{}, {"positions": "none"}])
def test_a_shallower_network_answers_as_the_whole_one_does_on_what_it_was_fitted_to(options):
    supernet = supernet_with(**options)
    pixels = digits().train.normalized(slice(0, 256))
    shallow = replace(supernet.space.largest(), layers=supernet.space.largest().layers[:1])
    with torch.no_grad(), one_thread():
        whole, before = supernet.dense()(pixels), supernet(pixels, shallow)
        fit_depths(supernet, pixels.split(64))
        after = supernet(pixels, shallow)
        assert torch.equal(supernet.dense()(pixels), whole)
        assert torch.equal(supernet.extract(shallow)(pixels), after)

    def error(logits):
        return float((logits - whole).square().mean() / (whole - whole.mean(dim=0)).square().mean())

    assert error(after) < 0.5 * error(before)
    assert [name for name in supernet.state_dict() if name.startswith(DEPTH)] == ["head.depth_1"]
