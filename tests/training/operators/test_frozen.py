"""Training with the matrices of the start as they were."""

import pytest
import torch
from small_runs import trainer

from nas.training.checkpoint import load_checkpoint
from nas.training.operators.frozen import FROZEN

RECIPE = {"trainable": "head_and_norms", "lr": 0.01}


def values(supernet):
    return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_matrices_stay_bit_equal_and_everything_else_is_trained(tmp_path, ema_decay):
    training = trainer(tmp_path, ema_decay=ema_decay, static_guidance=0.0, ends=0.9, **RECIPE)
    training.begin()
    first = values(training.supernet)
    training.run()
    for found in (values(training.supernet), values(training.trained())):
        frozen = [name for name in found if FROZEN.fullmatch(name)]
        assert len(frozen) == 1 + 2 * 4  # patches, and four matrices in each of two layers
        assert all(torch.equal(found[name], first[name]) for name in frozen)
        moved = {name for name in found if not torch.equal(found[name], first[name])}
        assert moved >= {"head.weight", "head.bias", "pos_embed", "cls_token", "norm.weight", "blocks.0.norm1.weight"}
        assert moved >= {"blocks.0.attn.qkv.bias", "blocks.1.mlp.fc1.bias", "patch_embed.proj.bias"}
        assert set(found) - moved >= set(frozen)


def test_frozen_matrices_get_no_gradient_and_no_state_of_the_optimiser(tmp_path):
    training = trainer(tmp_path, **RECIPE)
    training.begin()
    training.train_step(0)
    frozen = {name for name, parameter in training.supernet.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in training.supernet.named_parameters() if FROZEN.fullmatch(name)}
    assert all(training.supernet.get_parameter(name).grad is None for name in frozen)
    training.save(1)
    kept = load_checkpoint(tmp_path, expected={}).group("optimizer")
    assert kept
    assert not [name for name in kept if name.rpartition(".")[0] in frozen]


def test_by_default_matrices_are_trained(tmp_path):
    training = trainer(tmp_path)
    assert all(parameter.requires_grad for parameter in training.supernet.parameters())
