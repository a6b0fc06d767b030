"""An exported network as a backbone: feature maps by timm's interface, from the layers whose tokens are on a grid."""

import warnings

import pytest
import timm
import torch
from bundles import CLASS_TOKEN, EVERY_OPERATOR, MEAN_POOL, OPERATORS_MEAN_POOLED, export, layer, subnet_of
from timm.models.vision_transformer import VisionTransformer

from nas.arch.architecture import Architecture
from nas.base.errors import ArchitectureError
from nas.model.families.features import layers_on_grid

pytestmark = pytest.mark.filterwarnings("ignore:strides that are no powers of two")
NETWORKS = ((EVERY_OPERATOR, CLASS_TOKEN), (OPERATORS_MEAN_POOLED, MEAN_POOL))


def exported(folder, subnet):
    export(subnet, folder)
    return f"local-dir:{folder}"


def block_outputs(subnet, images):
    """What every block puts out when the network classifies."""
    found = []
    hooks = [block.register_forward_hook(lambda _, __, y: found.append(y[0])) for block in subnet.blocks]
    with torch.no_grad():
        subnet(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
def test_the_feature_maps_of_a_bundle_are_the_patch_tokens_of_its_own_blocks_on_their_grid(
    architecture, backbone, tmp_path
):
    subnet = subnet_of(architecture, backbone)
    images = torch.randn(3, 3, 32, 32)
    features = timm.create_model(exported(tmp_path / "b", subnet), pretrained=True, features_only=True).eval()
    with torch.no_grad():
        maps = features(images)
    outputs, layers = block_outputs(subnet, images), layers_on_grid(architecture, backbone)
    assert len(maps) == len(layers)
    for i, found in zip(layers, maps, strict=True):
        tokens = outputs[i][:, backbone.num_prefix_tokens :]
        side = found.shape[-1]
        assert found.shape == (3, architecture.embed_dim, side, side)
        assert side**2 == architecture.layers[i].num_tokens
        for row in range(side):
            assert torch.equal(found[:, :, row], tokens[:, row * side : (row + 1) * side].transpose(1, 2))


def test_channels_and_reductions_are_told_for_the_layers_that_were_chosen(tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    features = timm.create_model(source, pretrained=True, features_only=True, out_indices=(0, 6, 8))
    assert features.feature_info.channels() == [24, 24, 24]
    assert features.feature_info.reduction() == [4, pytest.approx(32 / 6), 6.4]
    assert features.feature_info.module_name() == ["blocks.0", "blocks.6", "blocks.8"]
    with torch.no_grad():
        shapes = [tuple(found.shape) for found in features.eval()(torch.randn(1, 3, 32, 32))]
    assert shapes == [(1, 24, 8, 8), (1, 24, 6, 6), (1, 24, 5, 5)]


def test_what_comes_after_the_last_chosen_layer_is_not_kept(tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    names = dict(timm.create_model(source, features_only=True, out_indices=[1]).named_parameters())
    assert {name.split(".")[2] for name in names if ".blocks." in name} == {"0", "1"}
    assert not [name for name in names if name.startswith(("model.head", "model.norm"))]


def test_a_plain_network_has_the_features_of_timms_own_vit():
    plain = Architecture(embed_dim=16, layers=(layer(64),) * 3)
    subnet = subnet_of(plain, CLASS_TOKEN)
    vit = VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2
    ).eval()
    vit.load_state_dict(subnet.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for arguments in (
        {"indices": [0, -1]},
        {"indices": 2, "norm": True},
        {"indices": [1], "output_fmt": "NLC", "stop_early": True},
    ):
        with torch.no_grad():
            ours = subnet.forward_intermediates(images, intermediates_only=True, **arguments)
            timms = vit.forward_intermediates(images, intermediates_only=True, **arguments)
        for one, other in zip(ours, timms, strict=True):
            torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(subnet.forward_intermediates(images)[0], subnet.forward_features(images))


def test_layers_off_the_grid_are_refused_and_those_on_it_named(tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    for chosen in ((0, 9), [-1], 1):
        with pytest.raises(ArchitectureError, match=r"no feature map of layer (9|10) \(14 tokens\).* 0, 1, 2.* 8 do"):
            timm.create_model(source, pretrained=True, features_only=True, out_indices=chosen)
    for chosen in ((0, 11), (-12,), 12, ()):
        with pytest.raises(ArchitectureError, match="layers of the network are 0 to 10"):
            timm.create_model(source, pretrained=True, features_only=True, out_indices=chosen)


def test_tokens_off_the_grid_can_be_had_as_a_sequence():
    subnet = subnet_of(EVERY_OPERATOR, CLASS_TOKEN)
    images = torch.randn(2, 3, 32, 32)
    (tokens,) = subnet.forward_intermediates(images, [9], output_fmt="NLC", intermediates_only=True)
    assert torch.equal(tokens, block_outputs(subnet, images)[9][:, 1:])
    with pytest.raises(ArchitectureError, match="square grid"):
        subnet.forward_intermediates(images, [9])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((64, 32, 16), [0, 2]), ((64, 14, 9), [0]), ((32, 32), []), ((49, 40, 25), [0])],
    ids=["half keeps to the grid", "a raster leaves it for good", "never", "more rows than before"],
)
def test_a_grid_is_square_and_was_never_left(counts, expected):
    fewer = [a > b for a, b in zip((64, *counts), counts, strict=False)]
    layers = [layer(n, reducer="glad" if less else None) for n, less in zip(counts, fewer, strict=True)]
    assert layers_on_grid(Architecture(embed_dim=16, layers=tuple(layers)), CLASS_TOKEN) == expected


def test_maps_are_resampled_to_the_strides_asked_for_at_any_size_of_images(tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    chosen = {"pretrained": True, "features_only": True, "out_indices": [0, -5, 8], "dynamic_img_size": True}
    as_they_are = timm.create_model(source, **chosen).eval()
    strided = timm.create_model(source, out_strides=[4, 4, 8], **chosen).eval()
    assert strided.feature_info.reduction() == [4, 4, 8]
    assert strided.feature_info.channels() == [24, 24, 24]
    for rows, columns in ((32, 32), (48, 32), (40, 56)):
        images = torch.randn(2, 3, rows, columns)
        with torch.no_grad():
            maps, before = strided(images), as_they_are(images)
        assert [found.shape[2:] for found in maps] == [(rows // s, columns // s) for s in (4, 4, 8)]
        assert torch.equal(maps[0], before[0]), "what has the stride is as it was"
        assert maps[1].shape != before[1].shape


def test_strides_that_are_no_powers_of_two_are_told_unless_they_are_resampled(tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    with pytest.warns(
        UserWarning, match=r"5\.33 of layer 6, 6\.4 of layer 8; .* out_strides=\[4, 4, 8\] resamples"
    ) as told:
        timm.create_model(source, features_only=True, out_indices=(0, 6, 8))
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        timm.create_model(source, features_only=True, out_indices=(0, 2))
        timm.create_model(source, features_only=True, out_indices=(0, 6), out_strides=(4, 8))


@pytest.mark.parametrize("strides", [(4,), (4, 4, 8), (4, 0), (4, 5.5)], ids=str)
def test_strides_that_cannot_be_are_refused(strides, tmp_path):
    source = exported(tmp_path / "b", subnet_of(EVERY_OPERATOR, CLASS_TOKEN))
    with pytest.raises(ArchitectureError, match=r"a whole number of pixels for each of layers \[0, 6\]"):
        timm.create_model(source, features_only=True, out_indices=(0, 6), out_strides=strides)
    with pytest.raises(TypeError, match="feature_cls='fx'"):
        timm.create_model(source, features_only=True, out_indices=(0, 6), out_strides=(4, 8), feature_cls="fx")
    with pytest.raises(TypeError, match="nas_vit cannot take out_strides"):
        timm.create_model(source, out_strides=(4, 8))
