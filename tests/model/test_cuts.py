"""Matrices that are fitted to what is left of their inputs: least squares, and the laws of the supernet with them."""

import numpy as np
import pytest
import torch
from small_spaces import growing, part_of, randomise, space

from nas.base.errors import CheckpointError
from nas.model.cuts import DEPTH, FACTOR, cut_inputs, cut_matrices, factor_of, fitted
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree

SPACE = space()


def rows(seed, size, count=500):
    """Correlated inputs [count, size], that are not 0 on average."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mix / size**0.5 + torch.randn(size, generator=generator)


def factors(supernet, seed):
    """Of inputs that were never there."""
    found = {}
    for matrix in cut_matrices(supernet.space):
        x = rows(seed, supernet.get_submodule(matrix).get_parameter("weight").shape[1])
        found[matrix + FACTOR] = factor_of((x.T @ x).double())
    width = max(supernet.space.widths)
    for depth in set(supernet.space.depth) - {max(supernet.space.depth)}:
        found[f"{DEPTH}{depth}"] = torch.eye(width) + rows(depth, width, width) / 5
    return found


def fitted_supernet(part, seed):
    supernet = Supernet(part).eval()
    randomise(supernet, seed)
    supernet.load_factors(factors(supernet, seed))
    return supernet


def images(seed=0):
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kept", [1, 5, 11])
def test_outputs_are_nearest_to_those_of_the_whole_matrix(kept):
    x, weight = rows(0, 12), torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    found = fitted(weight, factor_of((x.T @ x).double()), kept, "blocks.0.mlp.fc2")
    best = torch.linalg.lstsq(x[:, :kept], x @ weight.T).solution.T
    errors = [float((x[:, :kept] @ w.T - x @ weight.T).square().sum()) for w in (found, best, weight[:, :kept])]
    assert errors[0] == pytest.approx(errors[1], rel=1e-2)  # the factor is damped
    assert errors[0] < 0.9 * errors[2]


@pytest.mark.parametrize("matrix", ["blocks.0.attn.proj", "blocks.0.mlp.fc1"])
def test_cut_twice_is_cut_at_once(matrix):
    x, weight = rows(2, 12), torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    factor = factor_of((x.T @ x).double())
    between = fitted(weight, factor, 9, matrix)
    twice = fitted(between, factor[:9, :9], 5, matrix)
    assert torch.allclose(twice, fitted(weight, factor, 5, matrix), atol=1e-4)


def test_channels_that_a_norm_makes_smaller_have_the_size_they_had():
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(2, 0.5, 16)
    x = torch.nn.functional.layer_norm(x, (16,))
    factor, weight = factor_of((x.T @ x).double()), torch.eye(16)[:4]
    seen = torch.nn.functional.layer_norm(x[:, :8], (8,))  # as a narrower network sees them
    found = seen @ fitted(weight, factor, 8, "blocks.0.attn.qkv").T
    assert float(found.square().mean()) == pytest.approx(float(x[:, :4].square().mean()), rel=0.1)
    assert 1.3 * float(seen[:, :4].square().mean()) < float(x[:, :4].square().mean())


@pytest.mark.parametrize("seed", range(6))
def test_subnets_are_what_is_extracted_alone_and_together_bit_for_bit(seed):
    rng = np.random.default_rng(seed)
    part = growing() if seed == 5 else part_of(SPACE, rng)
    supernet = fitted_supernet(part, seed)
    architectures, x = [part.sample(rng) for _ in range(8)], images(seed)
    with torch.inference_mode():
        tree = SubnetTree(SubnetParts(supernet, torch.device("cpu"), "fp32"), dict(enumerate(architectures)))
        together, failed = tree.answers(x, range(8))
        assert not failed
        for i, architecture in enumerate(architectures):
            alone = supernet.extract(architecture)(x)
            assert torch.equal(supernet(x, architecture), alone), architecture
            assert torch.equal(together[i][1], alone), architecture


def test_the_whole_network_is_the_same_and_narrower_ones_are_not():
    supernet, plain = fitted_supernet(SPACE, 0), Supernet(SPACE).eval()
    randomise(plain, 0)
    with torch.no_grad():
        assert torch.equal(supernet.dense()(images()), plain.dense()(images()))
        narrow = SPACE.smallest()
        assert not torch.allclose(supernet(images(), narrow), plain(images(), narrow), atol=1e-2)


def test_a_state_dict_brings_the_factors_along_and_gradients_reach_what_is_cut():
    supernet = fitted_supernet(SPACE, 1)
    other = Supernet(SPACE, seed=9).eval()
    other.load_state_dict(supernet.state_dict())
    narrow = SPACE.smallest()
    assert torch.equal(other(images(), narrow), supernet(images(), narrow))
    addresses = [value.data_ptr() for network in (supernet, other) for value in network.state_dict().values()]
    assert len(set(addresses)) == len(addresses)  # or no file would take both
    supernet(images(), narrow).square().sum().backward()
    weight = supernet.get_parameter("blocks.0.attn.qkv.weight")
    assert weight.grad[:, min(SPACE.embed_dim) :].abs().sum() > 0
    assert not [name for name, _ in supernet.named_parameters() if name.endswith(FACTOR)]


@pytest.mark.parametrize("seed", range(12))
def test_a_part_of_the_space_is_fitted_to_its_greatest_sizes(seed):
    rng = np.random.default_rng(seed)
    supernet, part = fitted_supernet(SPACE, seed), part_of(SPACE, rng)
    sliced = Supernet(part, seed=1).eval()
    is_smaller = max(part.depth) < max(SPACE.depth) or max(part.embed_dim) < max(SPACE.embed_dim)
    if is_smaller and len(part.depth) > 1:
        with pytest.raises(CheckpointError, match="shallower networks are fitted"):
            sliced.load_slices(supernet.state_dict())
        return
    sliced.load_slices(supernet.state_dict())
    with torch.no_grad():
        for i in range(4):
            architecture, x = part.sample(rng), images(i)
            expected = supernet(x, architecture)
            assert torch.allclose(sliced(x, architecture), expected, atol=1e-3 * float(expected.abs().max()))


def test_every_matrix_is_known_by_its_inputs_whatever_the_operator():
    rng = np.random.default_rng(0)
    supernet = Supernet(SPACE)
    for _ in range(10):
        subnet = supernet.extract(SPACE.sample(rng))
        for weight, matrix, inputs in cut_inputs(subnet):
            if matrix in cut_matrices(SPACE):
                assert supernet.get_parameter(weight).shape[1] >= inputs
                assert supernet.get_submodule(matrix).get_parameter("weight").shape[1] >= inputs
    assert [name for name in cut_matrices(space(embed_dim=(24,))) if "qkv" in name or "fc1" in name] == []
