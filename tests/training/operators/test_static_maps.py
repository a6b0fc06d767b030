from dataclasses import replace

import pytest
import torch
from factories import backbone
from small_runs import few_digits, one_thread, tiny_space
from small_spaces import space
from torch import nn

from nas.model.layers.glad import average_tokens
from nas.model.supernet import Supernet
from nas.space.space import parse_space
from nas.training.operators.calibration import calibrate
from nas.training.operators.static_maps import IMAGES, REACH, mean_maps, near, set_static_maps
from nas.training.world import World


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def test_mean_maps_are_those_that_a_calibration_finds():
    supernet, images = Supernet(tiny_space()), few_digits().train
    assert len(images) < IMAGES
    means = mean_maps(supernet, images, World())
    calibration = calibrate(supernet.dense(), [images.normalized(slice(0, len(images)))])
    assert list(means) == [0, 1]
    for mean, layer in zip(means.values(), calibration.layers, strict=True):
        assert mean.dtype is torch.float64
        assert torch.allclose(mean, layer.mean_map, atol=1e-6)


def test_networks_without_positions_have_mean_maps_too():
    space = tiny_space()
    bare = replace(space, backbone=replace(space.backbone, positions="none"))
    found, expected = (mean_maps(Supernet(each), few_digits().train, World()) for each in (bare, space))
    assert [mean.shape for mean in found.values()] == [mean.shape for mean in expected.values()]


def test_nothing_is_watched_where_no_layer_is_static():
    text = """
name: dynamic
backbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}
embed_dim: 16
depth: 2
layers: {attention: [dynamic, linear], num_heads: 2, mlp_ratio: 2}
"""
    assert mean_maps(Supernet(parse_space(text, "dynamic")), few_digits().train, World()) == {}


def test_every_count_of_tokens_gets_its_map_also_one_that_is_no_square():
    supernet = Supernet(space())
    stored = dict(supernet.named_parameters())
    means = {i: torch.randn(3, 17, 17).softmax(dim=2) for i in range(4)}
    names = set_static_maps(stored, means, backbone())
    assert sorted(names) == sorted(name for name in stored if "static_map" in name)
    assert {name.rpartition("_")[2] for name in names} == {"16", "9", "6", "4"}
    for name in names:
        maps = stored[name].detach().softmax(dim=2)
        assert torch.allclose(maps.sum(dim=2), torch.ones(()))
        assert torch.allclose(maps[:, 0, 0], means[int(name[7])][:, 0, 0], atol=1e-4)


@pytest.mark.parametrize("tokens", [9, 6, 4])
def test_queries_of_fewer_tokens_are_averaged_as_the_reducers_average_tokens(tokens):
    to_first = torch.linspace(0.1, 0.9, 16)  # how much each patch looks at the class token; the rest is for itself
    mean = torch.diag(torch.cat([torch.ones(1), 1 - to_first]))
    mean[1:, 0] = to_first
    stored = {f"blocks.0.attn.static_map_{tokens}": nn.Parameter(torch.zeros(1, tokens + 1, tokens + 1))}
    set_static_maps(stored, {0: mean[None]}, backbone())
    (found,) = stored.values()
    expected = average_tokens(to_first[None, :, None], tokens).flatten()
    assert torch.allclose(found.detach().softmax(dim=2)[0, 1:, 0], expected, atol=1e-4)


def test_what_has_no_mean_map_stays():
    supernet = Supernet(space())
    stored = dict(supernet.named_parameters())
    before = {name: value.detach().clone() for name, value in stored.items()}
    mean = torch.randn(2, 17, 17).softmax(dim=2)  # of two heads; three are stored
    names = set_static_maps(stored, {1: mean}, backbone())
    assert all(name.startswith("blocks.1.") for name in names)
    assert torch.allclose(stored["blocks.1.attn.static_map_16"][:2].detach().softmax(dim=2), mean, atol=1e-4)
    assert torch.equal(stored["blocks.1.attn.static_map_16"][2], before["blocks.1.attn.static_map_16"][2])
    assert all(torch.equal(value, before[name]) for name, value in stored.items() if name not in names)


def test_far_patches_count_less_and_rows_stay_maps():
    even = torch.full((2, 17, 17), 1 / 17, dtype=torch.float64)
    nearer = near(even, backbone())
    assert torch.allclose(nearer.sum(dim=2), torch.ones((), dtype=torch.float64))
    assert torch.allclose(nearer[:, 0], even[:, 0])  # the class token looks everywhere, as before
    patch = nearer[0, 1]  # the first of 4 x 4
    assert torch.allclose(patch[0], patch[1])  # the class token is as near as the patch itself
    assert patch[1] > patch[2] > patch[3] > patch[4]
    assert torch.allclose(patch[2] / patch[1], torch.exp(torch.tensor(-0.5 * (0.25 / REACH) ** 2, dtype=torch.float64)))
    assert torch.allclose(patch[2], patch[5])  # right and below


def test_what_maps_have_learnt_stays_in_them():
    mean = torch.rand(2, 17, 17, dtype=torch.float64).softmax(dim=2)
    weight = near(torch.ones_like(mean), backbone())[:, 1:, 1:] / near(torch.ones_like(mean), backbone())[:, 1:, :1]
    found = near(mean, backbone())
    ratio = found[:, 1:, 1:] / found[:, 1:, :1]
    assert torch.allclose(ratio, weight * mean[:, 1:, 1:] / mean[:, 1:, :1])


REDUCED = """
name: reduced
backbone: {image_size: 8, patch_size: 1, num_classes: 10, head_dim: 8, class_token: false, key_tokens: 16}
embed_dim: 16
depth: 2
layers: {num_tokens: [64, 16, 4], attention: [dynamic, static], num_heads: 2, mlp_ratio: 2}
overrides: [{layers: 0, num_tokens: 64}]
rules: {static_after_reduction: true}
"""


def test_maps_of_reduced_keys_are_of_tokens_by_keys_for_every_count_of_tokens():
    supernet, images = Supernet(parse_space(REDUCED, "reduced")), few_digits().train
    means = {layer: near(mean, supernet.space.backbone) for layer, mean in mean_maps(supernet, images, World()).items()}
    assert {mean.shape for mean in means.values()} == {(2, 64, 16)}
    stored = dict(supernet.named_parameters())
    names = set_static_maps(stored, means, supernet.space.backbone)
    assert {name.rpartition("_")[2]: tuple(stored[name].shape) for name in names} == {
        "64": (2, 64, 16), "16": (2, 16, 16), "4": (2, 4, 4),
    }  # fmt: skip
    assert all(torch.allclose(stored[name].softmax(dim=2).sum(dim=2), torch.ones(())) for name in names)
    averaged = average_tokens(means[1].float(), 16)  # the keys of 64 tokens are 16 already
    assert torch.allclose(stored["blocks.1.attn.static_map_16"].softmax(dim=2), averaged, atol=1e-4)


def test_far_keys_count_less_than_near_ones():
    fixed = backbone(class_token=False, key_tokens=4)
    weight = near(torch.full((1, 16, 4), 0.25), fixed)[0]
    assert weight.argmax(dim=1).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    assert torch.allclose(weight.flip(0, 1), weight)  # a key is in the middle of its square, not at its corner
