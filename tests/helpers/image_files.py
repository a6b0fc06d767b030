"""Small image folders and parquet files for the tests of the data modules."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas.base.errors import DataError
from nas.data.images import ImageData, ImageSet
from nas.data.loader import load_images
from nas.settings.config import DataConfig

SIZE = 8
NAMES = ("cat", "dog", "owl")


def encode(pixels, form="PNG", mode=None):
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, form)
    return stream.getvalue()


def encoded_images(number, seed=0):
    """`number` different PNG files of SIZE x SIZE RGB noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (number, SIZE, SIZE, 3), dtype=np.uint8)
    return [encode(one) for one in pixels]


def write_folder(root, per_class=10, classes=NAMES, seed=0):
    images = encoded_images(per_class * len(classes), seed)
    for number, image in enumerate(images):
        folder = root / classes[number % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.png").write_bytes(image)
    return root


def write_parquet(path, images, labels, names=NAMES, paths=None):
    rows = [{"bytes": image, "path": name} for image, name in zip(images, paths or [None] * len(images), strict=True)]
    fields = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, fields), "label": pa.array(labels, pa.int64())})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def load_both(spec, *, size=SIZE, seed=0, **options):
    """What a search may see, and what opens the test split."""
    return load_images(DataConfig(spec=str(spec), **options), size, seed)


def load(spec, **options) -> ImageData:
    return load_both(spec, **options)[0]


def load_test(spec, **options) -> ImageSet:
    return load_both(spec, **options)[1].open()


def load_splits(spec, **options):
    """Train, search and test images."""
    data, test = load_both(spec, **options)
    return data.train, data.search, test.open()


def error_of(spec, **options):
    with pytest.raises(DataError) as caught:
        load(spec, **options)
    return caught.value


def contents(images: ImageSet):
    return {image.tobytes() for image in images.images}


def all_contents(spec, **options):
    """Those of train, search and test."""
    return tuple(map(contents, load_splits(spec, **options)))
