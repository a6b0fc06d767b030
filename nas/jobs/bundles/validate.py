"""`validate`: how many labelled images a bundle gets right, as its files are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.base import ConfigError, Reporter, plural
from nas.bundle import INT8, Opened
from nas.data import ImageSet, class_names_of, every_image, load_images
from nas.evaluation import balanced_interval, balanced_percent, count_correct, top1_percent, wilson_interval
from nas.latency import device_name
from nas.settings import resolve_config

BATCH = 64
SPLITS = ("test", "search", "train", "all")
"""What of the data is looked at; `all` are all images of all splits, as they are stored."""


def validate(
    bundle: Opened, spec: str, split: str, settings: Sequence[str], reporter: Reporter, seed: int | None = None
) -> dict[str, Any]:
    """Top-1 of a bundle on a split of a data spec: JSON of `validate --format json`.

    Splits are carved with the seed, by default the one of the run that the bundle is from. Classes go by name.

    Raises:
        ConfigError: A setting is wrong, or the images are of other classes.
        DataError: The images cannot be used, or have no such split.
        EvaluationError: A logit is not finite.
    """
    size, side = bundle.backbone.image_size, bundle.stored_side
    begun = bundle.provenance.get("split_seed", bundle.provenance.get("seed"))
    chosen = seed if seed is not None else begun if type(begun) is int else 0
    config = resolve_config(None, settings, {"data.spec": spec, "seed": chosen})
    data = config.data.model_copy(update={"stored_size": side})
    names = class_names_of(data)
    # Whether a class is too small for a split is known once the images are read; those of two classes are left then.
    may_lack = data.skip_small_classes and split != "all" and len({*(names or ())} & {*bundle.class_names}) > 1
    if names is not None and not may_lack:
        _check_classes(names, bundle, spec)
    hashes: Mapping[str, str] = {}
    if split == "all":
        sets = every_image(data, size, reporter)
    else:
        loaded, test = load_images(data, size, config.seed, reporter)
        hashes = loaded.info.hashes
        if split == "test" and test is None:
            raise ConfigError(f"{spec}: has no test split", hint="--split all takes all of its images")
        sets = [test.open() if split == "test" and test else loaded.train if split == "train" else loaded.search]
    sets = [_as_the_bundle_has_it(images, bundle, spec) for images in sets]
    labels = np.concatenate([images.labels for images in sets])
    right = np.concatenate(
        [count_correct(bundle.run, images, batch_size=BATCH, device=bundle.device, precision="fp32") for images in sets]
    )
    known = bundle.provenance.get("splits")
    eight = bundle.table.get("int8") if bundle.runtime == INT8 else None
    card = eight if isinstance(eight, Mapping) and "test_top1" in eight else bundle.table
    return {
        "schema_version": 1,
        "bundle": str(bundle.folder),
        "digest": bundle.table["digest"],
        "runtime": bundle.runtime,
        "device": device_name(bundle.device.type),
        "runtime_version": bundle.version,
        "data": spec,
        "split": split,
        "seed": config.seed,
        "images": len(right),
        "top1": top1_percent(right),
        "top1_ci": list(wilson_interval(right)),
        "balanced_top1": balanced_percent(right, labels),
        "balanced_top1_ci": list(balanced_interval(right, labels)),
        "chance": 100 * max(1 / len(bundle.class_names), np.bincount(labels).max() / len(labels)),
        "card_test_top1": card.get("test_top1"),
        "card_precision": "fp32" if card is bundle.table else "int8",
        "notes": list(_notes(split, hashes, known if isinstance(known, dict) else {})),
        "classes": _class_rows(right, labels, bundle.class_names),
    }


def _as_the_bundle_has_it(images: ImageSet, bundle: Opened, spec: str) -> ImageSet:
    """The same images, normalised as the bundle wants them, and labelled by the places of its classes."""
    names, place = images.info.class_names, {name: i for i, name in enumerate(bundle.class_names)}
    _check_classes(names, bundle, spec)
    info = replace(images.info, class_names=bundle.class_names, mean=bundle.mean, std=bundle.std)
    places = np.array([place[name] for name in names], dtype=np.int64)
    return replace(images, labels=places[images.labels], info=info)


def _check_classes(names: Sequence[str], bundle: Opened, spec: str) -> None:
    """Raises a ConfigError where the bundle lacks one of the classes."""
    if unknown := [name for name in names if name not in bundle.class_names]:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise ConfigError(
            f"{spec}: {plural(len(unknown), 'class', 'classes')} that {bundle.folder} does not know: {some}",
            hint=f"it knows {', '.join(bundle.class_names[:10])}{', ...' if len(bundle.class_names) > 10 else ''}",
        )


def _notes(split: str, hashes: Mapping[str, str], known: Mapping[str, Any]) -> Iterator[str]:
    """What these images are to the run that the bundle is from."""
    if split == "all":
        yield "all images of all splits: if this data trained the network, most of them did"
    elif hashes.get(split) is not None and hashes[split] == known.get(split):
        of = {"test": "the test split that is on its card", "train": "the images that trained it"}
        yield f"these are {of.get(split, 'the images that chose the architecture')}"
    elif known:
        yield "these are not the images of its run's splits: whether it was trained on some is not known"


def _class_rows(right: NDArray[np.bool_], labels: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class that has images."""
    rows = []
    for label in np.unique(labels):
        own = right[labels == label]
        low, high = wilson_interval(own)
        counts = {"images": len(own), "right": int(own.sum())}
        rows.append({"class": names[label], **counts, "top1": top1_percent(own), "top1_low": low, "top1_high": high})
    return rows
