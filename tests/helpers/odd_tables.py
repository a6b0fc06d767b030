"""Parquet files as people have them: any column types, any layout of files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from image_files import encoded_images

COLOURS = ("red", "green", "blue")
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def class_names(**names: tuple[str, ...]) -> dict[str, str]:
    """Metadata of a schema as Hugging Face's `datasets` writes it, with the names of classes by column."""
    features = {column: {"names": list(some), "_type": "ClassLabel"} for column, some in names.items()}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def structs(images: list[bytes]) -> pa.Array:
    """Images as the hub stores them."""
    return pa.array([{"bytes": image, "path": "red/1.png"} for image in images], STRUCT)


def write_table(
    path: Path, *, count: int = 24, seed: int = 0, metadata: dict[str, str] | None = None, **columns
) -> Path:
    """A file of `count` different images in column `image`; a column is an array, or a function of the row's number.

    Args:
        path: Folders are made.
        count: Rows.
        seed: Of the images.
        metadata: Of the schema, as by `class_names`.
        columns: By name, in order; without `label` among them and without metadata, a label of three classes is added;
            None takes a column away.
    """
    table: dict[str, pa.Array] = {"image": structs(encoded_images(count, seed)), "label": [n % 3 for n in range(count)]}
    for name, values in columns.items():
        if values is None:
            table.pop(name)
        else:
            table[name] = [values(n) for n in range(count)] if callable(values) else values
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.table(table)
    pq.write_table(made.replace_schema_metadata(metadata) if metadata else made, path)
    return path


def write_files(root: Path, *names: str, count: int = 12) -> Path:
    """A file of different images at each of the paths below `root`, without or with their suffix."""
    for seed, name in enumerate(names):
        write_table(root / (name if name.lower().endswith(".parquet") else f"{name}.parquet"), count=count, seed=seed)
    return root
