"""`predict`: the classes that a bundle sees in images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.base import DataError, EvaluationError, Reporter, plural
from nas.bundle import Opened
from nas.data import UnreadableImageError, decoded, fitted, images_below

BATCH = 64
MOST_NAMED = 10  # unreadable images, in an error


def predict(
    bundle: Opened, images: Sequence[Path], top: int, reporter: Reporter, *, skip_bad_images: bool = False
) -> dict[str, Any]:
    """The `top` most probable classes of image files, and of all below folders: JSON of `predict --format json`.

    Images are made ready as the bundle's network was trained and measured.

    Raises:
        DataError: There is no image, or some cannot be read, or none of them where these are skipped; names them.
        EvaluationError: A logit is not finite.
    """
    files = _files(images)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    with reporter.bar("images") as bar, torch.inference_mode():
        for start in range(0, len(files), BATCH):
            batch = list(_read(files[start : start + BATCH], bundle, bad))
            if batch and (skip_bad_images or not bad):
                rows += _predicted(bundle, batch, min(top, len(bundle.class_names)))
            bar(min(start + BATCH, len(files)), len(files), f"{len(rows):,} of {len(files):,}")
    named = [*bad[:MOST_NAMED], "..."] if len(bad) > MOST_NAMED else bad
    if bad and not (skip_bad_images and rows):
        told = bad[0] if len(bad) == 1 else "\n    ".join([f"{plural(len(bad), 'unreadable image')}:", *named])
        way = "" if skip_bad_images else "; --skip-bad-images leaves out what is none"
        raise DataError(
            f"no image is left: {told}" if skip_bad_images else told, hint=f"give image files, or folders of them{way}"
        )
    if bad:
        reporter.line("images", f"{plural(len(bad), 'unreadable image')} left out: {'; '.join(named)}")
    return {
        "schema_version": 1,
        "bundle": str(bundle.folder),
        "digest": bundle.table["digest"],
        "runtime": bundle.runtime,
        "left_out": bad,
        "images": rows,
    }


def _files(images: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in images:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder", hint="give image files, or folders of them")
        below = images_below(path) if path.is_dir() else [path]
        if not below:
            raise DataError(f"{path}: there is no image in it", hint="give image files, or folders of them")
        found += below
    return list(dict.fromkeys(found))


def _read(files: Sequence[Path], bundle: Opened, bad: list[str]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    """The files that are images, and their pixels [3, S, S]; adds to those that are none."""
    size, side = bundle.backbone.image_size, bundle.stored_side
    first = (side - size) // 2
    for file in files:
        try:
            pixels = fitted(decoded(file.read_bytes()).image, side)
        except (UnreadableImageError, OSError) as error:
            bad.append(f"{file}: {error}")
            continue
        yield file, pixels[first : first + size, first : first + size].transpose(2, 0, 1)


def _predicted(bundle: Opened, batch: Sequence[tuple[Path, NDArray[np.uint8]]], top: int) -> Iterator[dict[str, Any]]:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (bundle.mean, bundle.std))
    pixels = torch.from_numpy(np.stack([one for _, one in batch])).float()
    logits = bundle.run(pixels.div_(255).sub_(mean).div_(std).to(bundle.device)).cpu()
    if not torch.isfinite(logits).all():
        raise EvaluationError(f"{bundle.folder}: a logit is not finite", hint="export it again")
    probabilities, classes = torch.softmax(logits.double(), dim=1).topk(top)
    for (file, _), shares, numbers in zip(batch, probabilities.tolist(), classes.tolist(), strict=True):
        best = zip(shares, numbers, strict=True)
        found = [{"class": bundle.class_names[number], "probability": share} for share, number in best]
        yield {"image": str(file), "predictions": found}


def prediction_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """`predict` as rows of CSV, one an image and rank."""
    return [
        {"image": row["image"], "rank": rank, **one}
        for row in found["images"]
        for rank, one in enumerate(row["predictions"], start=1)
    ]
