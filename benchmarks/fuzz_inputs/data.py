"""Images and tables that are odd."""

import io
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz_inputs.case import QUICK, TINY, Case, odd, spoiled


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
    layout = rng.choice(("", "", "train", "train/x", "Train", "0/1/2", "é", "a b"))
    pixels = np.random.default_rng(rng.randrange(2**32))
    for label in range(rng.choice((0, 1, 2, 3, 3, 3, 4))):
        for i in range(rng.choice((0, 1, 6, 8, 12))):
            path = (
                root
                / layout
                / f"c{label}"
                / f"{i}.{rng.choice(('png', 'png', 'png', 'jpg', 'bmp', 'gif', 'tiff', 'webp', 'txt', 'svg'))}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = rng.choice(("RGB", "RGB", "RGB", "L", "P", "RGBA", "1", "CMYK", "I;16", "F", "LA"))
            size = rng.choice(((8, 8), (8, 8), (1, 1), (9, 300), (2000, 1), (64, 48)))
            image = Image.fromarray(pixels.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            file = io.BytesIO()
            kind = {"jpg": "JPEG", "tiff": "TIFF", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}.get(
                path.suffix[1:], "PNG"
            )
            try:
                (image.convert(mode) if mode != "I;16" else image.convert("I").convert("I;16")).save(file, kind)
            except (OSError, ValueError, KeyError):
                image.save(file, kind)
            content = file.getvalue()
            path.write_bytes(spoiled(content, rng) if rng.random() < 0.06 else content)
    root.mkdir(exist_ok=True)
    for _ in range(rng.choice((0, 0, 1, 2))):
        place = rng.choice([root, *(p for p in root.rglob("*") if p.is_dir())])
        match rng.randrange(6):
            case 0:
                (place / rng.choice(("notes.txt", ".DS_Store", "Thumbs.db", "x.png"))).write_bytes(rng.randbytes(20))
            case 1:
                (place / "link").symlink_to(rng.choice((".", "..", "/nonexistent", "link")))
            case 2:
                (place / rng.choice(("__MACOSX", "@eaDir", "test", "val", "Test", "empty"))).mkdir(exist_ok=True)
            case 3:
                (place / "dir.png").mkdir(exist_ok=True)
            case 4:
                os.mkfifo(place / "pipe.png")
            case 5:
                Path(os.fsdecode(bytes(place) + b"/\xff\xfe.png")).write_bytes(rng.randbytes(9))
    spec = rng.choice(
        ("folder:images",) * 6
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
    if rng.random() < 0.25:
        names = ("search_fraction", "test_fraction", "skip_bad_images", "skip_small_classes", "image_column")
        more = [f"--set=data.{rng.choice(names)}={odd(rng)}"]
    return Case(
        arguments=(
            "train",
            "tiny.yaml",
            "--run=r",
            *QUICK,
            f"--data={spec}",
            *more,
            *rng.choice(((), ("--skip-bad-images",))),
        )
    )


def parquet(rng: random.Random, folder: Path) -> Case:
    """Parquet files whose columns are odd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "tiny.yaml").write_text(TINY)
    rows = rng.choice((0, 1, 30, 30, 30, 60))
    pixels = np.random.default_rng(rng.randrange(2**32))

    def image() -> Any:
        if rng.random() < 0.02:
            return rng.choice((None, b"", b"x" * 30))
        file = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()

    labels: Sequence[Any] = [i % 3 for i in range(rows)]
    match rng.randrange(10):
        case 0:
            labels = [str(label) for label in labels]
        case 1:
            labels = [label * 1.5 for label in labels]
        case 2:
            labels = [rng.choice((None, -1, 2**40, 0, 1)) for _ in labels]
        case 3:
            labels = [[label] for label in labels]
        case 4:
            labels = [label == 1 for label in labels]
        case 5:
            labels = [rng.choice((float("nan"), float("inf"), 0.0, 1.0)) for _ in labels]
        case 6:
            labels = [b"\xff" if label else b"a" for label in labels]
    blobs = [image() for _ in range(rows)]
    pictures: Any = rng.choice(
        (
            blobs,
            [{"bytes": blob, "path": None} for blob in blobs],
            [{"bytes": blob} for blob in blobs],
            ["x.png"] * rows,
            [1] * rows,
            [{"bytes": None, "path": "x.png"}] * rows,
        )
    )
    names = rng.choice(
        (("image", "label"),) * 6 + (("img", "labels"), ("x", "y"), ("image", "image"), ("", "label"), ("é", "label"))
    )
    table = pa.table([pa.array(pictures), pa.array(labels)], names=list(names))
    if rng.random() < 0.2:
        table = table.replace_schema_metadata(
            {
                "huggingface": rng.choice(
                    (
                        b"{",
                        b"[]",
                        b'{"info": {"features": {"label": {"names": ["a"], "_type": "ClassLabel"}}}}',
                        b"\xff",
                        b'{"info": 3}',
                    )
                )
            }
        )
    (folder / "p").mkdir()
    for name in rng.choice(
        (("train",), ("train", "test"), ("a", "b"), ("train-00000-of-00002", "train-00001-of-00002"))
    ):
        path = folder / "p" / f"{name}.parquet"
        pq.write_table(table, path)
        if rng.random() < 0.15:
            path.write_bytes(spoiled(path.read_bytes(), rng))
    spec = rng.choice(
        ("parquet:p",) * 5
        + (
            "parquet:p/train.parquet",
            "parquet:p/*.parquet",
            "parquet:",
            "parquet:p,p",
            "parquet:tiny.yaml",
            "parquet:missing",
            "folder:p",
        )
    )
    more = [f"--set=data.{rng.choice(('image_column', 'label_column'))}={odd(rng)}"] if rng.random() < 0.25 else []
    return Case(arguments=("train", "tiny.yaml", "--run=r", *QUICK, f"--data={spec}", *more))
