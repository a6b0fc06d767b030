"""What a narrow network of a trained start computes once matrices are fitted to what it has of their inputs."""

import torch
from small_runs import digits, one_thread
from small_spaces import tiny_space

from nas.model.cuts import FACTOR, cut_matrices, factor_of
from nas.model.supernet import Supernet
from nas.training.operators.cuts import fit_cuts


def test_factors_are_of_the_inputs_of_the_plain_vit_and_change_nothing_for_it():
    supernet = Supernet(tiny_space().with_num_classes(10), seed=1).eval()
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
