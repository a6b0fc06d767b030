"""Which shipped space suits which images: every one that is proposed is a legal space of its size."""

import re

import pytest

from nas.jobs.proposal.design import ENLARGED, FEW, TRAINED, Images, comment, design_for
from nas.space.space import parse_space


def images(side, num_images=5000, *, on_cuda=False):
    return Images(side=side, num_images=num_images, on_cuda=on_cuda)


@pytest.mark.parametrize(
    ("side", "base", "image_size", "patch_size"),
    [
        (3, "digits", 8, 2),
        (8, "digits", 8, 2),
        (16, "cifar_small", 16, 2),
        (27, "cifar_small", 16, 2),
        (28, "cifar_small", 32, 4),
        (32, "cifar_small", 32, 4),
        (64, "small_64", 64, 8),
        (96, "small_96", 96, 12),
        (110, "small_96", 96, 12),
    ],
)
def test_small_images_get_the_largest_space_that_they_fill(side, base, image_size, patch_size):
    design = design_for(images(side))
    assert (design.base, design.image_size, design.patch_size, design.init) == (base, image_size, patch_size, "")
    assert side * ENLARGED >= image_size or image_size == 8
    assert ("enlarged" in design.why["image_size"]) == (side < image_size)


@pytest.mark.parametrize(
    ("found", "base", "image_size", "init"),
    [
        (images(300), "deit_tiny", 128, TRAINED),
        (images(128, on_cuda=True), "deit_tiny", 128, TRAINED),
        (images(300, on_cuda=True), "deit_tiny", 224, TRAINED),
        (images(300, FEW), "small_128", 128, ""),
    ],
)
def test_few_photographs_start_from_a_trained_vit(found, base, image_size, init):
    design = design_for(found)
    assert (design.base, design.image_size, design.init) == (base, image_size, init)


def test_who_wants_no_trained_weights_gets_none():
    assert design_for(images(300), from_scratch=True).base == "small_128"


@pytest.mark.parametrize("from_scratch", [False, True])
@pytest.mark.parametrize("on_cuda", [False, True])
@pytest.mark.parametrize("side", [1, 8, 16, 28, 32, 64, 96, 128, 224, 1000])
def test_what_is_proposed_is_a_space_of_that_size_and_keeps_its_comments(side, on_cuda, from_scratch):
    design = design_for(images(side, on_cuda=on_cuda), from_scratch=from_scratch)
    text = design.text("mine", "One line.\nAnother " + "long " * 40 + "one.")
    space = parse_space(text, "mine.yaml")
    assert (space.name, space.backbone.image_size, space.backbone.patch_size) == (
        "mine",
        design.image_size,
        design.patch_size,
    )
    assert space.num_classes_from_data
    assert space.layers[0].num_tokens == (space.backbone.num_patches,)
    assert max(map(len, re.findall("^#.*$", text, flags=re.MULTILINE))) <= 110
    assert set(design.why) == {"image_size", "patch_size", "embed_dim", "init"}


def test_a_comment_is_wrapped_and_nothing_else():
    assert comment("", "  ") == []
    assert comment("a\nkey: b", "  ") == ["  # a key: b"]
