"""Where images come from: a data spec becomes a source of labelled, encoded images, or one clear error."""

import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from PIL import Image

from nas.base import DataError, plural
from nas.data.samples import Sample, Source, data_error, listed, missing_path, nearby, numbered
from nas.data.timm_source import PACKAGES, timm_source

_DATA_HELP = "digits | folder:DIR | parquet:TRAIN[,TEST] | torch/NAME:DIR | hfds/NAME[:DIR] | wds/:DIR"
_TEST_NAMES = ("test", "val", "validation", "valid")  # in order of preference
_IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip


def open_source(spec: str) -> Source:
    """The source that a data spec names. Looks at paths, folders and schemas; decodes no image.

    Raises:
        DataError: Unknown spec, missing path, no or empty classes, wrong columns, unknown timm data set.
    """
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits()
    if kind == "folder" and rest:
        return _folder(spec, Path(rest).expanduser())
    if kind == "parquet" and rest:
        return _parquet(spec, rest)
    prefix, slash, name = kind.partition("/")
    if slash and prefix.lower() in PACKAGES and not Path(spec).exists():
        return timm_source(spec, prefix.lower(), name, rest)
    if kind in ("folder", "parquet"):
        raise DataError(f"{spec!r}: a path must follow {kind}:", hint=f"data is one of: {_DATA_HELP}")
    if kind == "digits":
        raise DataError(f"{spec!r}: digits is bundled and takes no path", hint="write just: digits")
    if not slash and prefix in PACKAGES:
        raise DataError(f"{spec!r} names no data set", hint=f"write {prefix}/NAME:DIR, as timm does")
    if Path(spec).expanduser().exists():
        kind = "parquet" if spec.endswith(".parquet") else "folder"
        raise DataError(f"{spec!r} is a path, not a data spec", hint=f'did you mean "{kind}:{spec}"?')
    words = ["digits", "folder", "parquet", *PACKAGES]
    close = difflib.get_close_matches(prefix.lower(), words, n=1)
    guess = f'did you mean "{close[0] + spec[len(prefix) :]}"? ' if close else ""
    raise DataError(f"unknown data spec {spec!r}", hint=f"{guess}data is one of: {_DATA_HELP}")


def _digits() -> Source:
    def read() -> Iterator[Sample]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = (bunch.images * (255 / 16)).round().astype("uint8")
        for row, label in enumerate(bunch.target):
            yield Sample(f"digits image {row}", int(label), Image.fromarray(pixels[row]))

    return Source("digits (scikit-learn)", tuple("0123456789"), read, None)


# --- folders ---


@dataclass(slots=True)
class _Part:
    """The class folders of one split."""

    root: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    num_ignored: int = 0


def _folder(spec: str, root: Path) -> Source:
    if not root.is_dir():
        raise missing_path(spec, root, "folder")
    is_split = (root / "train").is_dir() and any(entry.is_dir() for entry in (root / "train").iterdir())
    train = _list_classes(root / "train" if is_split else root)
    found = [name for name in _TEST_NAMES if is_split and (root / name).is_dir()]
    test = _list_classes(root / found[0]) if found else None
    problems: list[str] = []
    hint = "one folder a class: DIR/train/<class>/*.jpg and DIR/val or DIR/test, or DIR/<class>/*.jpg alone"
    if not is_split and train.files and set(train.files) <= {"train", *_TEST_NAMES}:
        problem = f"{root} has {listed(train.files)}, but no train/ with a folder for each class"
        raise data_error(spec, [problem], hint=hint)
    if len(train.files) < 2:
        problems.append(f"at least 2 class folders are needed in {train.root}, found {len(train.files)}")
        nested = [root / name for name in train.files if not is_split]
        nested = [folder for folder in nested if any(entry.is_dir() for entry in folder.iterdir())]
        hint = f'did you mean "folder:{nested[0]}"?' if nested else hint
    parts = [train] if test is None else [train, test]
    for part in parts:
        if empty := [name for name, paths in part.files.items() if not paths]:
            problems.append(f"class folders of {part.root} without images: {listed(empty)}")
    for one, other in permutations(parts, 2):
        if missing := sorted(set(one.files) - set(other.files)):
            problems.append(f"classes of {one.root} that {other.root} lacks: {listed(missing)}")
    if problems:
        raise data_error(spec, problems, hint=hint)
    from timm.utils.misc import natural_key

    # timm's own order (2 before 10), so that labels agree with timm's scripts on the same folder.
    names = tuple(sorted(train.files, key=lambda name: (natural_key(name), name)))
    used = {"train", *found[:1]} if is_split else set(names)
    unused = [entry.name for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name not in used]
    notes = [f"{name}/ is not used" for name in unused if not name.startswith(".")]
    if ignored := sum(part.num_ignored for part in parts):
        notes.append(f"{plural(ignored, 'other file')} ignored")
    return Source(
        f"folder {root}",
        names,
        lambda: _read_folder(train, names),
        None if test is None else lambda: _read_folder(test, names),
        notes=tuple(notes),
    )


def _list_classes(root: Path) -> _Part:
    part = _Part(root)
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            part.num_ignored += 1
            continue
        paths = part.files.setdefault(entry.name, [])
        for folder, _, names in os.walk(entry):
            visible = [Path(folder, name) for name in names if not name.startswith(".")]
            images = [path for path in visible if path.suffix.lower() in _IMAGE_SUFFIXES]
            paths += images
            part.num_ignored += len(visible) - len(images)
        paths.sort()
    return part


def _read_folder(part: _Part, class_names: tuple[str, ...]) -> Iterator[Sample]:
    for label, class_name in enumerate(class_names):
        for path in part.files[class_name]:
            try:
                yield Sample(str(path), label, path.read_bytes())
            except OSError as error:
                yield Sample(str(path), label, None, error.strerror or str(error))


# --- parquet ---


def _parquet(spec: str, paths: str) -> Source:
    parts = [paths] if Path(paths).expanduser().exists() else paths.split(",")
    if len(parts) > 2:
        raise DataError(f"{spec}: at most two paths, got {len(parts)}", hint="write parquet:TRAIN,TEST")
    files, problems = [], []
    for part in (Path(part.strip()).expanduser() for part in parts):
        if not part.exists():
            problems.append(f"no such parquet file or folder: {part}{nearby(part)}")
            continue
        files.append(sorted(part.rglob("*.parquet")) if part.is_dir() else [part])
        if not files[-1]:
            problems.append(f"no *.parquet file in {part}")
    if problems:
        raise data_error(spec, problems, hint="parquet:TRAIN[,TEST], each a file or a folder of such files")
    if len(files) == 1:
        files = _by_split(spec, files[0])
    tables, problems = _open_tables([path for paths in files for path in paths])
    all_names = {table.class_names for table in tables if table.class_names}
    if len(all_names) > 1:
        problems.append("the files disagree on the names of the classes: they are of different data sets")
    if problems:
        raise data_error(spec, problems, hint="columns: image (struct of bytes and path) and label (integer)")
    named = bool(all_names)
    names = all_names.pop() if named else numbered(label for table in tables for label in table.labels())
    by_path = {table.path: table for table in tables}
    train, *test = [[by_path[path] for path in paths] for paths in files]
    return Source(
        f"parquet {parts[0]}",
        names,
        lambda: (sample for table in train for sample in table.samples()),
        (lambda: (sample for table in test[0] for sample in table.samples())) if test else None,
        named_classes=named,
    )


def _by_split(spec: str, files: list[Path]) -> list[list[Path]]:
    """Train and test files of one folder, by the split in their names, as on the Hugging Face hub."""
    word = re.compile(r"(?:^|[-_.])(train|test|val|validation)(?=[-_.]|$)")
    split_of = {path: word.findall(path.stem) for path in files}
    train = [path for path in files if split_of[path] == ["train"]]
    tests = [[path for path in files if split_of[path] == [name]] for name in ("test", "validation", "val")]
    test = next((paths for paths in tests if paths), [])
    if not (train and test):
        return [files]
    unclear = [path.name for path in files if len(split_of[path]) != 1]
    if unclear:
        problem = f"some names say train or test, but these do not: {listed(unclear)}"
        raise data_error(spec, [problem], hint="name both sides: parquet:TRAIN,TEST")
    return [train, test]


@dataclass(frozen=True, slots=True)
class _Table:
    """One parquet file whose columns were checked."""

    path: Path
    image_column: str
    label_column: str
    class_names: tuple[str, ...]

    def labels(self) -> set[int]:
        import pyarrow.parquet as pq

        column = pq.read_table(self.path, columns=[self.label_column]).column(0)
        return {int(label) for label in column.unique().to_pylist() if label is not None}

    def samples(self) -> Iterator[Sample]:
        row = 0
        for batch in self._batches():
            images = batch.column(self.image_column.partition(".")[0]).to_pylist()
            labels = batch.column(self.label_column).to_pylist()
            for image, label in zip(images, labels, strict=True):
                encoded = image["bytes"] if isinstance(image, dict) else image
                problem = "" if encoded else "no bytes in this row; images by path are not read"
                yield Sample(f"{self.path} row {row}", -1 if label is None else label, encoded, problem)
                row += 1

    def _batches(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(batch_size=256, columns=[self.image_column, self.label_column])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from error


def _open_tables(paths: Sequence[Path]) -> tuple[list[_Table], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, problems = [], []
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            problems.append(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}")
            continue
        features = _features(schema.metadata)
        image = next((name for name in ("image", "img") if name in schema.names), "")
        by_class = [name for name, kind in features.items() if isinstance(kind, dict) and "names" in kind]
        label = next((name for name in ("label", "labels", *by_class) if name in schema.names), "")
        columns = ", ".join(schema.names)
        if not image:
            problems.append(f"{path}: no column image; columns: {columns}")
        elif pa.types.is_struct(schema.field(image).type):
            fields = [part.name for part in schema.field(image).type]
            # Only the bytes are read: a path may give the class away.
            image = f"{image}.bytes" if "bytes" in fields else ""
            if not image:
                problems.append(f"{path}: column image must have a field bytes, has: {', '.join(fields)}")
        elif not (pa.types.is_binary(kind := schema.field(image).type) or pa.types.is_large_binary(kind)):
            problems.append(f"{path}: column {image} must be struct<bytes, path> or binary, is {kind}")
        if not label:
            problems.append(f"{path}: no column label; columns: {columns}")
        elif not pa.types.is_integer(schema.field(label).type):
            problems.append(f"{path}: column {label} must be integer, is {schema.field(label).type}")
        names = features.get(label, {}).get("names") or ()
        tables.append(_Table(path, image, label, tuple(str(name) for name in names)))
    return tables, problems


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Column types of Hugging Face's `datasets`, JSON in a parquet schema; empty where there are none."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}
