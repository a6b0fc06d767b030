import random
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import few_digits, image_data

from nas.base.errors import ConfigError
from nas.settings.config import TrainConfig
from nas.training.augmentation import Augmentation, _operations, check_policy
from nas.training.trainer import seed_everything

CPU = torch.device("cpu")


def pictures(size=24):
    """Images that no flip or crop maps onto themselves."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, size, size), dtype=torch.uint8, generator=generator)
    return image_data(images.numpy(), np.arange(16) % 10)


def tensors(data):
    return [torch.from_numpy(np.array(array)) for array in (data.train.images, data.train.labels)]


def augmented(data, seed=0, **recipe):
    size = data.train.images.shape[-1]
    augment = Augmentation(data.info, TrainConfig(**recipe), size, CPU)
    seed_everything(seed, 0)
    return augment(*tensors(data))


def test_without_augmentation_images_are_normalised_as_for_evaluation():
    images, labels = augmented(few_digits())
    torch.testing.assert_close(images, few_digits().train.normalized(slice(None)))
    assert labels.tolist() == few_digits().train.labels.tolist()


def test_nobody_waits_for_kornia_where_nothing_is_cropped_or_flipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    augmented(few_digits())
    with pytest.raises(ImportError):
        augmented(few_digits(), hflip=0.5)


def test_seeds_are_those_of_torch():
    seed_everything(3, 7)
    drawn = torch.rand(3)
    torch.manual_seed(int(np.random.SeedSequence([3, 7]).generate_state(3)[2]))
    assert torch.equal(torch.rand(3), drawn)


def test_a_flip_is_the_mirror_image():
    data = pictures()
    images, _ = augmented(data, hflip=1.0, crop_scale=(1.0, 1.0))
    torch.testing.assert_close(images, data.train.normalized(slice(None)).flip(3))


def test_flips_are_image_by_image():
    data = pictures()
    images, _ = augmented(data, hflip=0.5, crop_scale=(1.0, 1.0))
    plain = data.train.normalized(slice(None))
    flipped = [torch.allclose(image, other.flip(2)) for image, other in zip(images, plain, strict=True)]
    kept = [torch.allclose(image, other) for image, other in zip(images, plain, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 2 <= sum(flipped) <= 14


def test_crops_keep_the_size_and_the_range_of_the_pixels():
    data = pictures()
    images, _ = augmented(data, crop_scale=(0.3, 0.6))
    plain = data.train.normalized(slice(None))
    assert images.shape == plain.shape
    assert not torch.allclose(images, plain)
    assert images.min() >= plain.min() - 1e-4
    assert images.max() <= plain.max() + 1e-4


@pytest.mark.parametrize(
    "recipe", [{"crop_scale": (0.5, 1.0), "hflip": 0.5}, {"auto_augment": "rand-m5-n1"}, {"cutmix": 1.0}]
)
def test_augmentation_is_a_function_of_the_seed(recipe):
    data = pictures()
    one, again, other = (augmented(data, seed, **recipe)[0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_images_stay_as_they_are():
    data = pictures()
    images, labels = tensors(data)
    recipe = TrainConfig(hflip=0.5, crop_scale=(0.5, 1.0), mixup=1.0, auto_augment="rand-m5-n1")
    Augmentation(data.info, recipe, 24, CPU)(images, labels)
    assert np.array_equal(images, data.train.images)


@pytest.mark.parametrize(
    "policy", ["", "rand-m5-n1", "rand-m9-n3-mstd0.5-inc1", "augmix-m3-w3", "3a", "original", "v0", "originalr"]
)
def test_a_policy_that_timm_applies_is_let_through_and_draws_nothing(policy):
    drawn = []
    for checked in ("", policy):
        seed_everything(0, 0)
        check_policy(checked)
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-inc1-mmax0", "v0r", "original", "augmix-m10-w3"])
def test_every_operation_of_a_policy_works_at_every_level_that_it_may_draw(policy):
    check_policy(policy)
    augment = Augmentation(pictures().info, TrainConfig(auto_augment=policy), 24, CPU)
    operations = _operations(augment.policy)
    assert len(operations) > 5
    for operation in operations:
        operation.prob, operation.magnitude_std = 1.0, 0.0
        for operation.magnitude in (0.0, 5.0, 10.0):
            operation(Image.new("RGB", (24, 24), "gray"))


@pytest.mark.parametrize("policy", ["abc", "rand-x9", "rand-m5-n100000000", "augmix-w1e9", "augmix-q3"])
def test_a_policy_that_timm_cannot_use_is_refused(policy):
    with pytest.raises(ConfigError, match=r"train\.auto_augment"):
        check_policy(policy)
