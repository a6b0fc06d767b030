"""An overlapping stem in numbers; that torch counts the same is in tests/model/test_stem.py."""

from dataclasses import replace

import pytest
from factories import backbone, plain

from nas.arch import cost, memory
from nas.arch.operators.stems.overlap import OVERLAP_STEM, overlap_kernel


@pytest.mark.parametrize(("patch", "kernel"), [(2, 3), (3, 5), (4, 7), (16, 31)])
def test_a_kernel_reaches_into_its_neighbours(patch, kernel):
    fixed = backbone(image_size=4 * patch, patch_size=patch)
    assert overlap_kernel(fixed) == kernel
    assert not OVERLAP_STEM.broken(fixed)


def test_patches_of_one_pixel_cannot_overlap():
    assert "2 or more" in OVERLAP_STEM.broken(backbone(image_size=4, patch_size=1))


def test_costs_of_a_convolution_and_its_norm():
    """16 x 16 grey pixels, 4 x 4 positions of 24 channels."""
    stem = cost.breakdown(replace(plain(), stem="overlap"), backbone())[0]
    assert (stem.operation, stem.macs) == ("overlap_stem", 16 * 49 * 24)
    assert stem.params == (49 + 1) * 24 + 2 * 24


def test_the_norm_is_what_needs_most_memory():
    live = {name: n for _, name, n in memory.live_values(replace(plain(), stem="overlap"), backbone(), 2)}
    assert live["patch_embed"] == 2 * (16**2 + 2 * 16 * 24 + 2 * 16)
