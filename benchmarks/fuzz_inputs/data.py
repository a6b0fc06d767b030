"""Folders of images that are odd."""

import os
import random
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz_inputs.case import QUICK, TINY, Case, odd
from fuzz_inputs.pictures import SUFFIXES, picture


def digits(folder: Path, rng: random.Random) -> tuple[str, ...]:
    """A small folder of images, ten classes."""
    images = np.random.default_rng(0)
    for label in range(10):
        for i in range(8):
            path = folder / "images" / f"{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return ("--data=folder:images",)


def image_folder(rng: random.Random, folder: Path) -> Case:
    """A folder of images among which some are odd, and folders that are no data set."""
    (folder / "tiny.yaml").write_text(TINY)
    root = folder / "images"
    layout = rng.choice(("", "", "", "", "train", "train/x", "Train", "0/1/2", "é", "a b"))
    damage = rng.choice((0.0, 0.02, 0.1, 0.5))
    for label in range(rng.choice((0, 1, 2, *(3,) * 12, 4))):
        for i in range(rng.choice((0, 1, 6, *(8,) * 12, 12))):
            suffix = rng.choice(("png", "png", "jpg", *SUFFIXES))
            path = root / layout / f"c{label}" / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(rng, suffix, damage=damage))
    root.mkdir(exist_ok=True)
    for _ in range(rng.choice((0, 0, 1, 2))):
        place = rng.choice([root, *(p for p in root.rglob("*") if p.is_dir())])
        match rng.randrange(6):
            case 0:
                (place / rng.choice(("notes.txt", ".DS_Store", "Thumbs.db", "x.png"))).write_bytes(rng.randbytes(20))
            case 1:
                (place / f"link{rng.random()}").symlink_to(rng.choice((".", "..", "/nonexistent", "link")))
            case 2:
                (place / rng.choice(("__MACOSX", "@eaDir", "test", "val", "Test", "empty"))).mkdir(exist_ok=True)
            case 3:
                (place / "dir.png").mkdir(exist_ok=True)
            case 4:
                (place / "pipe.png").unlink(missing_ok=True)
                os.mkfifo(place / "pipe.png")
            case 5:
                Path(os.fsdecode(bytes(place) + b"/\xff\xfe.png")).write_bytes(rng.randbytes(9))
    spec = rng.choice(
        ("folder:images",) * 20
        + (
            "folder:",
            "folder:images,images",
            "folder:missing",
            "folder:tiny.yaml",
            "images",
            "folder:images/c0",
            "parquet:images",
        )
    )
    more = []
    if rng.random() < 0.1:
        names = (
            "search_fraction",
            "test_fraction",
            "skip_bad_images",
            "skip_small_classes",
            "image_column",
            "stored_size",
        )
        more = [f"--set=data.{rng.choice(names)}={odd(rng)}"]
    if rng.random() < 0.2:
        more.append(f"--set=data.stored_size={rng.choice((1, 7, 8, 9, 64, 1000))}")
    return Case(
        arguments=(
            "train",
            "tiny.yaml",
            "--run=r",
            *QUICK,
            f"--data={spec}",
            *more,
            *rng.choice(((), ("--skip-bad-images",), ("--skip-bad-images", "--set=data.skip_small_classes=true"))),
        )
    )
