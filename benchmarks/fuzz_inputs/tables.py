"""Parquet files that are odd: columns of other types, several shards that disagree, damage inside."""

import datetime
import json
import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz_inputs.case import QUICK, TINY, Case, odd, spoiled
from fuzz_inputs.pictures import picture

IMAGE_NAMES = ("image", "label")
NAMES = (
    *(IMAGE_NAMES,) * 40,
    ("img", "labels"),
    ("x", "y"),
    ("image", "image"),
    ("", "label"),
    ("é", "label"),
    ("a.b", "label"),
    ("image.bytes", "label"),
    ("image", "label.x"),
    ("\0", "label"),
    ("image", "\x1b[31m"),
    ("Image", "Label"),
    ("image", "fine_label"),
    ("image", "a" * 5000),
    ("image", "label "),
)
METADATA = (
    b"{",
    b"[]",
    b"\xff",
    b"null",
    b'{"info": 3}',
    b'{"info": {"features": 3}}',
    b'{"info": {"features": {"label": []}}}',
    b'{"info": {"features": {"label": {"names": ["a"], "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": ["a", "a", "b"], "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": [1, null, {}], "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": "abc", "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": {"0": "a"}, "_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"label": {"names": ["", "\\u001b[2J", "\\ud800"], "_type": "ClassLabel"}}}}',
    b"[" * 100_000,
    json.dumps({"info": {"features": {"label": {"names": [str(i) for i in range(30_000)]}}}}).encode(),
)
SHARDS = (
    *(("train",),) * 12,
    ("train", "test"),
    ("train", "validation", "test"),
    ("a", "b"),
    ("train-00000-of-00002", "train-00001-of-00002"),
    ("train", "train/x"),
    ("é", "a b"),
    ("train,test", "x"),
    ("tr[a]in", "test"),
    ("\udcff", "train"),
    ("a\nb", "train"),
    (".hidden", "train"),
    ("test",),
    ("train", "test-00000-of-00001"),
    ("plain/train-0", "cropped/train-0"),
    ("'; drop", "train"),
)


def labels(rng: random.Random, rows: int) -> Any:
    """A column of labels, most often three classes."""
    import pyarrow as pa

    right = [i % 3 for i in range(rows)]
    kinds: dict[str, Any] = {
        "text": lambda: pa.array([f"c{label}" for label in right]),
        "fractions": lambda: pa.array([label * 1.5 for label in right], pa.float64()),
        "out of range": lambda: pa.array([rng.choice((None, -1, 2**40, 0, 1)) for _ in right], pa.int64()),
        "negative": lambda: pa.array([label - 1 for label in right]),
        "lists": lambda: pa.array([[label] for label in right], pa.list_(pa.int64())),
        "yes or no": lambda: pa.array([label == 1 for label in right]),
        "not numbers": lambda: pa.array(
            [rng.choice((float("nan"), float("inf"), 0.0, 1.0, -0.0, 1e300)) for _ in right]
        ),
        "bytes": lambda: pa.array([b"\xff" if label else b"a" for label in right]),
        "unsigned": lambda: pa.array([rng.choice((0, 1, 2**64 - 1)) for _ in right], pa.uint64()),
        "small": lambda: pa.array(right, pa.int8()),
        "half floats": lambda: pa.array(right, pa.float32()).cast(pa.float16()),
        "dictionary": lambda: pa.array([f"c{label}" for label in right]).dictionary_encode(),
        "numbers in a dictionary": lambda: pa.array(right).dictionary_encode(),
        "nothing": lambda: pa.nulls(rows),
        "all null": lambda: pa.array([None] * rows, pa.int64()),
        "some null": lambda: pa.array([label if i % 5 else None for i, label in enumerate(right)], pa.int64()),
        "struct": lambda: pa.array([{"id": label} for label in right]),
        "empty struct": lambda: pa.array([{} for _ in right], pa.struct([])),
        "dates": lambda: pa.array([datetime.date(2000, 1, 1 + label) for label in right]),
        "times": lambda: pa.array([datetime.datetime(2000, 1, 1 + label) for label in right]),
        "decimals": lambda: pa.array(right).cast(pa.decimal128(30, 2)),
        "durations": lambda: pa.array(right, pa.int64()).cast(pa.duration("ns")),
        "map": lambda: pa.array([[("a", label)] for label in right], pa.map_(pa.string(), pa.int64())),
        "odd text": lambda: pa.array(
            [rng.choice(("", " ", "\0", "\x1b[31m", "a" * 5000, "é", "\uff10", "../x")) for _ in right]
        ),
        "not UTF-8": lambda: pa.array([b"\xff\xfe" if label else b"a" for label in right]).view(pa.string()),
        "many": lambda: pa.array([rng.randrange(2**31) for _ in right]),
        "texts of numbers": lambda: pa.array([str(label) for label in right]),
        "large text": lambda: pa.array([f"c{label}" for label in right], pa.large_string()),
    }
    if rng.random() < 0.35:
        return pa.array(right, pa.int64())
    return kinds[rng.choice(sorted(kinds))]()


def pictures(rng: random.Random, rows: int) -> Any:
    """A column of images."""
    import pyarrow as pa

    damage = rng.choice((0.0, 0.0, 0.1))
    missing = rng.choice((0.0, 0.0, 0.05))
    blobs = [
        rng.choice((None, b"", b"x"))
        if rng.random() < missing
        else picture(rng, rng.choice(("png", "jpg")), damage=damage)
        for _ in range(rows)
    ]
    kinds: dict[str, Any] = {
        "binary": lambda: pa.array(blobs, pa.binary()),
        "large": lambda: pa.array(blobs, pa.large_binary()),
        "dictionary": lambda: pa.array(blobs, pa.binary()).dictionary_encode(),
        "only bytes": lambda: pa.array([{"bytes": blob} for blob in blobs], pa.struct([("bytes", pa.binary())])),
        "rows without": lambda: pa.array(
            [None if i % 7 == 3 else {"bytes": blob} for i, blob in enumerate(blobs)],
            pa.struct([("bytes", pa.binary())]),
        ),
        "paths": lambda: pa.array(["x.png"] * rows),
        "numbers": lambda: pa.array([1] * rows),
        "struct of paths": lambda: pa.array(
            [{"bytes": None, "path": "x.png"}] * rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        ),
        "lists": lambda: pa.array([[blob] for blob in blobs], pa.list_(pa.binary())),
        "lists of structs": lambda: pa.array(
            [[{"bytes": blob}] for blob in blobs], pa.list_(pa.struct([("bytes", pa.binary())]))
        ),
        "structs in structs": lambda: pa.array([{"bytes": {"bytes": blob}} for blob in blobs]),
        "pixels": lambda: pa.array([[[0] * 8] * 8] * rows, pa.list_(pa.list_(pa.uint8()))),
        "nothing": lambda: pa.nulls(rows),
        "fixed": lambda: pa.array([b"x" * 30] * rows, pa.binary(30)),
        "bytes as text": lambda: pa.array([{"bytes": "x"}] * rows, pa.struct([("bytes", pa.string())])),
        "bytes twice": lambda: pa.StructArray.from_arrays([pa.array(blobs, pa.binary())] * 2, names=["bytes", "bytes"]),
        "lists of numbers": lambda: pa.array([list(blob or b"") for blob in blobs], pa.list_(pa.uint8())),
        "empty struct": lambda: pa.array([{} for _ in blobs], pa.struct([])),
    }
    if rng.random() < 0.6:
        return pa.array(
            [{"bytes": blob, "path": "x.png"} for blob in blobs],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        )
    return kinds[rng.choice(sorted(kinds))]()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file with its footer or its pages damaged, most often so that it still opens."""
    if len(content) < 12:
        return spoiled(content, rng)
    (length,) = struct.unpack("<I", content[-8:-4])
    footer = len(content) - 8 - length
    changed = bytearray(content)
    match rng.randrange(7):
        case 0:
            return spoiled(content, rng)
        case 1 | 2:
            for _ in range(rng.choice((1, 4))):
                changed[rng.randrange(footer, len(content) - 8)] = rng.randrange(256)
        case 3:
            changed[-8:-4] = struct.pack("<I", rng.choice((0, 1, length - 1, 2**31, 2**32 - 1)))
        case 4 | 5:
            for _ in range(rng.choice((1, 8))):
                changed[rng.randrange(4, max(footer, 5))] = rng.randrange(256)
        case 6:
            del changed[4 : 4 + rng.randrange(1, 40)]
    return bytes(changed)


def parquet(rng: random.Random, folder: Path) -> Case:
    """Parquet files whose columns, shards, names or bytes are odd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "tiny.yaml").write_text(TINY)
    rows = rng.choice((0, 1, *(30,) * 8, 60))
    content = random.Random(rng.random()).getstate()
    for name in rng.choice(SHARDS):
        inside = random.Random(rng.random())
        if rng.random() < 0.7:  # else shards disagree
            inside.setstate(content)
        path = folder / "p" / f"{name}.parquet"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                _table(inside, rows),
                path,
                row_group_size=rng.choice((1, 7, 1000)),
                compression=rng.choice(("snappy", "zstd", "none")),
            )
        except (pa.ArrowException, OSError, UnicodeError):
            path.write_bytes(b"PAR1")
        if rng.random() < 0.15:
            path.write_bytes(damaged(path.read_bytes(), rng))
    _litter(rng, folder / "p")
    spec = rng.choice(
        ("parquet:p",) * 30
        + (
            "parquet:p/train.parquet",
            "parquet:p/*.parquet",
            "parquet:",
            "parquet:p,p",
            "parquet:tiny.yaml",
            "parquet:missing",
            "folder:p",
            "parquet:p/[",
            "parquet:**",
            "parquet:p/train.parquet,p/test.parquet",
            "parquet:p/link",
            "parquet:,",
            "parquet:p/../p",
            "parquet:/dev/null",
        )
    )
    more = [f"--set=data.{rng.choice(('image_column', 'label_column'))}={odd(rng)}"] if rng.random() < 0.08 else []
    more += rng.choice(((), (), ("--skip-bad-images",), ("--set=data.skip_small_classes=true", "--skip-bad-images")))
    more += rng.choice(((), (), (), ("--set=train.class_weights=balanced", "--set=search.objectives=[balanced_top1]")))
    return Case(arguments=("train", "tiny.yaml", "--run=r", *QUICK, f"--data={spec}", *more))


def _table(rng: random.Random, rows: int) -> Any:
    import pyarrow as pa

    names: Sequence[str] = rng.choice(NAMES)
    columns, names = [pictures(rng, rows), labels(rng, rows)], list(names)
    if rng.random() < 0.1:
        columns, names = [*columns, labels(rng, rows)], [*names, rng.choice(("label", "coarse_label", "image", "path"))]
    table = pa.Table.from_arrays(columns, names=names)
    if rng.random() < 0.25:
        table = table.replace_schema_metadata({"huggingface": rng.choice(METADATA)})
    return table


def _litter(rng: random.Random, folder: Path) -> None:
    match rng.randrange(12):
        case 0:
            (folder / "link.parquet").symlink_to(
                rng.choice(("link.parquet", "..", "/dev/zero", "train.parquet", "missing"))
            )
        case 1:
            (folder / "link").symlink_to(".")
        case 2:
            (folder / "dir.parquet").mkdir()
        case 3:
            os.mkfifo(folder / "pipe.parquet")
        case 4:
            (folder / rng.choice(("notes.txt", "_SUCCESS", "part.parquet.crc", "x.PARQUET"))).write_bytes(
                rng.randbytes(9)
            )
