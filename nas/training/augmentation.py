"""What training does to a batch of images before a network sees them, on whole tensors."""

import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import AugmentOp, posterize
from torch import Tensor, nn

from nas.base import ConfigError, one_line
from nas.data import DataInfo
from nas.settings import TrainConfig, shown

LEAST_CROPPED = 16  # pixels; of an 8 px digit, a crop leaves too little to read
ASPECT = (3 / 4, 4 / 3)
TRIES = 8  # of a policy that draws what it does
MOST_OPERATIONS = 20
EXAMPLE = DataInfo(class_names=(), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), flip_safe=False, hashes={})


class Augmentation:
    """Random crops and flips (Kornia), timm's automatic policies, and timm's Mixup and CutMix.

    Crops and flips are computed for the whole batch on the device that trains. A policy such as `rand-m5-n1` goes image
    by image through Pillow before them, as timm does. All of it draws from torch's, Python's and NumPy's global
    generators.

    Stored images may be larger (`stored_side`): crops are drawn from them, and without crops it is their centre that is
    seen.

    Shapes: images [B, 3, S, S] uint8 and labels [B] -> images [B, 3, S, S] float32, normalised, and labels [B], or
    class shares [B, K] with Mixup or CutMix.
    """

    def __init__(
        self,
        info: DataInfo,
        config: TrainConfig,
        image_size: int,
        device: torch.device,
        *,
        stored_side: int | None = None,
    ) -> None:
        self.device, self.image_size = device, image_size
        self.mean, self.std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (info.mean, info.std))
        self.geometry = _geometry(info, config, image_size)
        self.policy = _policy(info, config, stored_side or image_size)
        self.mixup: Any = None
        if config.mixup or config.cutmix:
            self.mixup = Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                label_smoothing=config.label_smoothing,
                num_classes=info.num_classes,
            )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment a batch."""
        if self.policy is not None:
            images = torch.stack([self.policy(_to_pil(image)) for image in images])
        x = images.to(self.device).float().div_(255)
        if self.geometry is not None:
            x = self.geometry(x)
        first = (x.shape[-1] - self.image_size) // 2
        x = x[..., first : first + self.image_size, first : first + self.image_size]  # where no crop was drawn
        x = x.sub_(self.mean).div_(self.std)
        labels = labels.to(self.device)
        if self.mixup is not None and len(x) % 2 == 0:
            x, labels = self.mixup(x, labels)
        return x, labels


def _geometry(info: DataInfo, config: TrainConfig, image_size: int) -> nn.Module | None:
    """Random resized crop and flip; None where neither is wanted."""
    flip = config.hflip if config.hflip is not None else (0.5 if info.flip_safe else 0.0)
    scale = config.crop_scale or ((0.6, 1.0) if image_size >= LEAST_CROPPED else (1.0, 1.0))
    if scale[0] == 1 and not flip:
        return None
    from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip, RandomResizedCrop  # over a second

    parts: list[Any] = []
    if scale[0] < 1:
        size = (image_size, image_size)
        parts.append(RandomResizedCrop(size, scale=scale, ratio=ASPECT, cropping_mode="resample"))
    if flip:
        parts.append(RandomHorizontalFlip(p=flip))
    return AugmentationSequential(*parts)


def _policy(info: DataInfo, config: TrainConfig, image_size: int) -> Any:
    """Timm's automatic augmentation of one Pillow image, to uint8 [3, S, S]; None where it is off."""
    if not config.auto_augment:
        return None
    policy = create_transform(
        (3, image_size, image_size),
        is_training=True,
        scale=(1.0, 1.0),
        ratio=(1, 1),
        hflip=0.0,
        color_jitter=None,
        auto_augment=config.auto_augment,
        interpolation="bilinear",
        mean=info.mean,
        std=info.std,
        use_prefetcher=True,  # ends with uint8 pixels
    )
    for operation in _operations(policy):
        if operation.aug_fn is posterize:
            operation.level_fn = partial(_bits, operation.level_fn)
    return policy


def _operations(policy: Any) -> list[AugmentOp]:
    """All that timm's policy draws from."""
    found: list[AugmentOp] = []
    for transform in policy.transforms:
        found += getattr(transform, "ops", [])
        found += [operation for pair in getattr(transform, "policy", []) for operation in pair]
    return found


def _bits(level_fn: Callable[..., tuple[int, ...]], *level: Any) -> tuple[int, ...]:
    """What timm makes of a level, but one bit at least.

    At level 10 its `inc1` policies keep none, which Pillow refuses by now; rand-m9-mstd0.5-inc1 draws that level once
    in 40 times.
    """
    bits, *others = level_fn(*level)
    return (max(bits, 1), *others)


def check_policy(text: str) -> None:
    """Raise a ConfigError where timm cannot read an automatic augmentation, or cannot apply it to an image."""
    if not text:
        return
    many = [part for part in text.split("-") if re.fullmatch(r"[nwd]\d+", part) and int(part[1:]) > MOST_OPERATIONS]
    if many:
        text = f"train.auto_augment: {many[0]} is more than {MOST_OPERATIONS} operations an image"
        raise ConfigError(text, hint="such as rand-m5-n2")
    torch_state, numpy_state, state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        policy = _policy(EXAMPLE, TrainConfig(auto_augment=text), LEAST_CROPPED)
        gray = Image.new("RGB", (LEAST_CROPPED, LEAST_CROPPED), "gray")
        for _ in range(TRIES):
            policy(gray)
        for operation in _operations(policy):  # what those draws left out
            operation.prob = 1.0
            operation(gray)
    except (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f": {error}" if str(error) else ""
        raise ConfigError(
            f"train.auto_augment: timm cannot use {shown(text)}{one_line(reason)}",
            hint="such as rand-m5-n1, augmix-m3-w3, 3a, original or v0; empty is off",
        ) from error
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(state)


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())
