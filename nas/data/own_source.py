"""Images of a Python program: anything with a length and items (image, label)."""

import operator
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from nas.base import DataError
from nas.data.samples import Sample, Source
from nas.data.split_names import SPLITS, roles
from nas.settings import DataConfig

CHANNELS = (1, 3)
ENDS = 1e-6  # beyond 0 and 1: rounding
ITEMS = "items are (image, label); labels are whole numbers from 0"
READ_TWICE = 8  # items of a split; a mirror thrown by a coin is overlooked once in 256


def own_source(data: Any, config: DataConfig) -> Source:
    """The source of a data set, or of data sets by split: `train`, and `validation` and `test` where they are.

    A data set has `len(...)` and items `(image, label)`. An image is PIL's, or an array or a tensor: whole numbers
    from 0 to 255 or floats from 0 to 1, [H, W], [C, H, W] or, of whole numbers, [H, W, C]. Labels count from 0.
    `classes` of the training data set are their names, if it has them. The same item is the same image every time.

    Raises:
        DataError: There is no training data set, another split, something without length and items, an item that is no
            (image, label), or one that is another when it is read again.
    """
    name, notes = config.spec, list[str]()
    splits = dict(data) if isinstance(data, Mapping) else {"train": data}
    if "train" not in splits or not set(splits) <= set(SPLITS):
        raise DataError(f"{name}: splits are {', '.join(map(str, splits))}", hint=f"train, and of {', '.join(SPLITS)}")
    for split, part in splits.items():
        if not (hasattr(part, "__len__") and hasattr(part, "__getitem__")):
            text = f"{name}: the {split} data set, a {type(part).__name__}, has no length, or no items"
            raise DataError(text, hint="a class with __len__ and __getitem__, whose items are (image, label)")
        _check_steady(name, part, split)
    reads = {split: partial(_samples, part, split) for split, part in splits.items()}
    names = tuple(map(str, getattr(splits["train"], "classes", None) or ()))
    most = max((sample.label for sample in reads["train"]()), default=-1) if not names else -1
    test, validation = roles(reads, config, notes)
    return Source(
        f"{name}, of a Python program",
        names or tuple(map(str, range(most + 1))),
        reads["train"],
        reads[test] if test else None,
        reads[validation] if validation else None,
        named_classes=bool(names),
        notes=tuple(notes),
    )


def _samples(part: Any, split: str) -> Iterator[Sample]:
    return (_sample(part, split, number) for number in range(len(part)))


def _sample(part: Any, split: str, number: int) -> Sample:
    name = f"{split} item {number}"
    try:
        item = part[number]
    except Exception as error:  # noqa: BLE001 - what another's code raises, listed as what is unreadable
        return Sample(name, 0, None, f"{type(error).__name__}: {error}")
    try:
        image, label = item
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is {item!r:.60}, not (image, label)", hint=ITEMS) from error
    try:
        return Sample(name, _whole(label), _as_image(image))
    except _LabelError as error:
        raise DataError(f"{name}: its label is {label!r:.60}", hint=ITEMS) from error
    except Exception as error:  # noqa: BLE001 - likewise
        return Sample(name, 0, None, f"{type(error).__name__}: {error}")


class _LabelError(Exception):
    """A label is no whole number from 0 on."""


def _whole(label: Any) -> int:
    try:
        number = operator.index(label)
    except TypeError as error:
        if not (isinstance(label, float | np.floating) and float(label).is_integer()):
            raise _LabelError from error
        number = int(label)
    if number < 0:
        raise _LabelError
    return number


def _check_steady(name: str, part: Any, split: str) -> None:
    """Read some items twice, the first and the last among them: images are known by their content."""
    for number in np.unique(np.linspace(0, len(part) - 1, min(len(part), READ_TWICE), dtype=int)).tolist():
        one, again = (_sample(part, split, number) for _ in range(2))
        if one.content is None or again.content is None:  # listed as unreadable
            continue
        if (one.label, one.fingerprint()) != (again.label, again.fingerprint()):
            what = "image" if one.label == again.label else "label"
            raise DataError(
                f"{name}: {one.name} has another {what} when it is read again",
                hint="the same image every time: random augmentation is the training's (train.auto_augment, ...)",
            )


def _as_image(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= -ENDS and pixels.max() <= 1 + ENDS):  # nor is it NaN
            raise ValueError(f"floats from {pixels.min():.3g} to {pixels.max():.3g}, not 0 to 1: leave normalising out")
        pixels = np.rint(pixels * 255)
    elif not (pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255):
        raise ValueError(f"values of {pixels.dtype}, not whole numbers from 0 to 255 or floats from 0 to 1")
    if pixels.ndim == 3 and pixels.shape[0] in CHANNELS and pixels.shape[2] not in CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"shape {np.shape(image)}, not [H, W] or [C, H, W] of 1 or 3 channels")
    return Image.fromarray(pixels.astype(np.uint8))
