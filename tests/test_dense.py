"""ViTDet's simple pyramid over the last map of any network that timm gives with `features_only=True`."""

import pytest
import timm
import torch
from torch import nn

import nas
from nas.base.errors import ArchitectureError
from nas.dense import SimplePyramid


class Ramp(nn.Module):
    """A body whose map holds the column, in pixels, of the middle of each of its cells."""

    class feature_info:  # noqa: N801 - timm's name
        channels = staticmethod(lambda: [3, 1])
        reduction = staticmethod(lambda: [4, 5.6])

    def forward(self, images):
        side = images.shape[-1]
        cells = round(side / 5.6)
        middles = (torch.arange(cells) + 0.5) * side / cells
        return [images, middles.expand(len(images), 1, round(images.shape[-2] / 5.6), cells)]


def timms_vit(**changes):
    return timm.create_model(
        "vit_tiny_patch16_224", embed_dim=8, depth=3, num_heads=2, features_only=True, dynamic_img_size=True, **changes
    )


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32, 64), (2,), (16,)], ids=str)
def test_maps_have_exactly_the_strides_asked_for_at_any_size_of_images(strides):
    pyramid = SimplePyramid(timms_vit(), 6, strides)
    for rows, columns in ((64, 64), (64, 96)):
        maps = pyramid(torch.randn(2, 3, rows, columns))
        assert list(maps) == [*map(str, range(len(strides))), "pool"]
        sides = [(-(-rows // s), -(-columns // s)) for s in (*strides, 2 * strides[-1])]
        assert [tuple(m.shape) for m in maps.values()] == [(2, 6, *of) for of in sides]


def test_a_stride_that_is_no_power_of_two_is_resampled_to_the_one_nearest_in_place():
    pyramid = SimplePyramid(Ramp(), 1, (4,))
    assert pyramid.stride == 4
    pyramid.levels[0] = nn.Identity()
    row = pyramid(torch.zeros(1, 3, 56, 56))["0"][0, 0, 5]
    torch.testing.assert_close(row[1:-1], (torch.arange(14)[1:-1] + 0.5) * 4)


def test_every_parameter_learns():
    pyramid = SimplePyramid(timms_vit(), 6)
    sum(found.square().mean() for found in pyramid(torch.randn(2, 3, 64, 96)).values()).backward()
    assert [name for name, p in pyramid.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("strides", [(), (4, 12), (8, 4), (4, 4), (0, 4)], ids=str)
def test_strides_that_are_none_are_refused(strides):
    with pytest.raises(ArchitectureError, match="powers of two, rising"):
        SimplePyramid(Ramp(), 8, strides)


def test_images_whose_sides_do_not_fit_the_map_are_refused():
    with pytest.raises(ArchitectureError, match=r"images of \(64, 90\) pixels: sides are multiples of 16"):
        SimplePyramid(timms_vit(dynamic_img_pad=True), 8)(torch.zeros(1, 3, 64, 90))


def test_it_is_part_of_the_public_interface():
    assert nas.dense.SimplePyramid is SimplePyramid
