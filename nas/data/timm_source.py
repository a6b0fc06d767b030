"""Images through timm's own data set readers, with their bare errors turned into clear ones."""

import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from nas.base import DataError, expanded
from nas.data.folder_source import split_folders
from nas.data.samples import Sample, Source, missing_path
from nas.data.split_names import roles
from nas.settings import DataConfig

PACKAGES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "wds": "webdataset",
    "tfds": "tensorflow_datasets",
}
"""Prefix of a timm spec, and the package that reads it."""

# What timm, torchvision and the readers below them raise for a wrong name, a missing file or a broken index.
_READER_ERRORS = (
    AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def timm_source(config: DataConfig, prefix: str, name: str, root: str) -> Source:
    """The source that timm's `create_dataset` opens for `prefix/name` in the folder `root`; no downloads.

    Raises:
        DataError: A package or the folder is missing, or timm cannot open the train split.
    """  # noqa: DOC501 - `missing_path` is a DataError
    spec = config.spec
    package = PACKAGES[prefix]
    if importlib.util.find_spec(package) is None:
        raise DataError(f"{spec}: {prefix}/ needs the package {package}", hint=f"pip install {package}")
    folder = str(expanded(root)) if root else None
    if folder is None and prefix in ("torch", "wds"):
        raise DataError(f"{spec}: a folder is needed", hint=f"write {prefix}/{name}:DIR")
    if folder is not None and not Path(folder).exists():
        raise missing_path(spec, Path(folder), "folder")
    train = _create(spec, prefix, name, folder, "train")
    read = partial(_read_timm, spec, prefix, name, folder)
    unused = split_folders(spec, Path(folder)) if folder and name in ("folder", "image_folder") else {}
    if unused and unused.pop("train") != Path(train.root):
        raise DataError(f"{spec}: timm takes the folders of splits for classes", hint=f"write folder:{folder}")
    splits: dict[str, partial[Iterator[Sample]]] = {}
    notes: list[str] = []
    for split in ("validation",) if prefix == "torch" else ("test", "validation"):
        try:
            dataset = _create(spec, prefix, name, folder, split)
        except DataError:
            continue
        # timm takes the whole folder for a split whose subfolder is absent.
        if name in ("folder", "image_folder") and folder is not None and Path(dataset.root) == Path(folder):
            continue
        unused = {split: path for split, path in unused.items() if path != Path(dataset.root)}
        if any(sample.label >= 0 for sample in read(split)):
            splits[split] = partial(read, split)
        else:
            notes.append(f"{split} has no labelled image and is not used")
    notes += [f"{path} is not used: timm does not know it as a split, folder: does" for path in unused.values()]
    test, validation = roles(splits, config, notes)
    names = _timm_class_names(train)
    return Source(
        f"timm {spec}",
        names or tuple(map(str, range(max((sample.label for sample in read("train")), default=-1) + 1))),
        partial(read, "train"),
        splits[test] if test else None,
        splits[validation] if validation else None,
        named_classes=bool(names),
        notes=tuple(notes),
    )


def _create(spec: str, prefix: str, name: str, root: str | None, split: str) -> Any:
    from timm.data import create_dataset

    try:
        return create_dataset(f"{prefix}/{name}", root=root, split=split, download=False)
    except _READER_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        hint = "nothing is downloaded: check the name, and that the folder holds the data set"
        if prefix == "wds":
            hint = "DIR/_info.json must give name, filenames, shard_lengths and num_samples of each split"
        raise DataError(f"{spec}: timm cannot open the {split} split: {reason}", hint=hint) from error


def _timm_class_names(dataset: Any) -> tuple[str, ...]:
    classes = getattr(dataset, "classes", None)
    if not classes:
        numbers = getattr(getattr(dataset, "reader", None), "class_to_idx", None) or {}
        classes = sorted(numbers, key=lambda name: numbers[name])
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in classes)


def _read_timm(spec: str, prefix: str, name: str, root: str | None, split: str) -> Iterator[Sample]:
    dataset = _create(spec, prefix, name, root, split)
    try:
        if prefix in ("torch", "hfds"):
            yield from _read_indexed(dataset, split)
            return
        row = -1
        for row, (image, label) in enumerate(dataset):
            yield Sample(f"{split} image {row}", int(label), image)
        for _ in range(row + 1, len(dataset)):
            yield Sample(f"{split} split", 0, None, "an image that timm cannot decode and leaves out")
    except _READER_ERRORS as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"{spec}: timm cannot read the {split} split: {reason}") from error


def _read_indexed(dataset: Any, split: str) -> Iterator[Sample]:
    # timm's ImageDataset puts the next image in the place of one it cannot read, so its reader is asked.
    reader = getattr(dataset, "reader", dataset)
    for row in range(len(dataset)):
        name = f"{split} image {row}"
        try:
            image, label = reader[row]
        except (OSError, SyntaxError, ValueError) as error:
            yield Sample(name, 0, None, str(error))
            continue
        if not isinstance(image, Image.Image):
            with image as stream:
                image = stream.read()
        yield Sample(name, int(label), image)
