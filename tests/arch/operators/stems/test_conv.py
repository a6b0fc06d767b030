"""A conv stem in numbers; that torch counts the same is in tests/model/test_stem.py."""

from dataclasses import replace
from itertools import pairwise

import pytest
from factories import backbone, plain

from nas.arch import cost, memory
from nas.arch.operators.stems.conv import CONV_STEM, stem_channels


@pytest.mark.parametrize(
    ("width", "patch", "channels"),
    [(192, 16, (24, 48, 96, 192)), (24, 4, (12, 24)), (24, 2, (24,)), (20, 8, (5, 10, 20)), (6, 16, (1, 2, 3, 6))],
)
def test_channels_double_up_to_the_width(width, patch, channels):
    assert stem_channels(width, backbone(image_size=32, patch_size=patch)) == (1, *channels)


def test_first_channels_of_a_narrower_network_are_among_those_of_a_wider_one():
    fixed = backbone(image_size=32, patch_size=16)
    every = [stem_channels(width, fixed) for width in range(1, 100)]
    assert all(a <= b for narrow, wide in pairwise(every) for a, b in zip(narrow, wide, strict=True))


@pytest.mark.parametrize("patch", [1, 3, 5, 6, 12])
def test_patches_that_are_no_power_of_two_are_refused(patch):
    assert f"not {patch}" in CONV_STEM.broken(backbone(image_size=4 * patch, patch_size=patch))
    assert not CONV_STEM.broken(backbone())


def test_costs_of_two_convolutions():
    """16 x 16 grey pixels, 8 x 8 positions of 12 channels, 4 x 4 of 24."""
    conv, patch = (cost.breakdown(replace(plain(), stem=stem), backbone())[0] for stem in ("conv", "patch"))
    assert (conv.operation, conv.macs) == ("conv_stem", 64 * 9 * 12 + 16 * 9 * 12 * 24)
    assert conv.params == (9 + 1) * 12 + 2 * 12 + (9 * 12 + 1) * 24
    assert (patch.operation, patch.macs, patch.params) == ("patch_embed", 16 * 16 * 24, (16 + 1) * 24)


def test_the_norm_between_is_what_needs_most_memory():
    live = {name: n for _, name, n in memory.live_values(replace(plain(), stem="conv"), backbone(), 2)}
    assert live["patch_embed"] == 2 * (16**2 + 2 * 64 * 12 + 2 * 64)
