"""Images in parquet files: which file is of which split, which column holds what, which label is which class."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.base import DataError, one_line, plural
from nas.data.samples import Part, Sample, Source, data_error, listed
from nas.data.split_names import (
    SPLITS,
    SpecPath,
    by_name,
    by_place,
    is_litter,
    natural_key,
    roles,
    spec_paths,
    split_of,
)
from nas.settings import DataConfig

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")
# What else may hold labels, where nothing is called `label` and no column has class names of its own.
_OTHER_LABEL_NAMES = (
    "fine_label", "coarse_label", "class", "classes", "class_name", "class_label", "class_id", "category", "target",
    "y", "cls",
)  # fmt: skip
_HINT = "data.image_column and data.label_column name the columns; a dot leads into a struct"
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class _Column:
    """A column, or a field inside a struct."""

    path: tuple[str, ...]
    type: Any  # Arrow's, of what a dictionary stands for

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(slots=True)
class _Table:
    """One parquet file."""

    path: Path
    schema: Any  # Arrow's
    num_rows: int
    image: _Column | None = None
    label: _Column | None = None
    numbers: Mapping[Any, int] | None = None  # class by label; None: labels are class numbers

    def samples(self) -> Iterator[Sample]:
        """Its rows."""
        assert self.image, "columns are chosen before a row is read"
        assert self.label, "columns are chosen before a row is read"
        for row, (encoded, value) in enumerate(self.rows(self.image, self.label)):
            problem = "" if encoded else "no bytes in this row; images by path are not read"
            yield Sample(f"{self.path} row {row}", self._number(value), encoded, problem)

    def _number(self, value: Any) -> int:
        value = _plain(value)
        if value is None:
            return -1
        return int(value) if self.numbers is None else self.numbers.get(value, -1)

    def labels(self) -> set[Any]:
        """Every label in it, None for rows without one."""
        return {_plain(value) for (value,) in self.rows(self.label)} if self.label else set()

    def rows(self, *columns: _Column) -> Iterator[tuple[Any, ...]]:
        """The values of some columns, row by row; a DataError where the file is damaged."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[column.name for column in columns]):
                    values = []
                    for column in columns:
                        array = batch.column(column.path[0])
                        for name in column.path[1:]:
                            if pa.types.is_dictionary(array.type):
                                array = array.dictionary_decode()
                            array = pc.struct_field(array, name)
                        values.append(array.to_pylist())
                    yield from zip(*values, strict=True)
        except Exception as error:  # such as a UnicodeDecodeError of text that is none
            raise DataError(f"{self.path} cannot be read: {one_line(str(error))}") from error


def _plain(value: Any) -> Any:
    """A label as it is compared: whole floats as integers, nothing where there is none."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value == "" else value


def parquet_source(config: DataConfig) -> Source:
    """The source of `parquet:PATH`, split by the names of its files, or of `parquet:TRAIN[,VALIDATION],TEST`.

    Raises:
        DataError: Everything that is wrong with the files: missing, not understood, wrong columns, other classes in
            another split.
    """  # noqa: DOC501 - `data_error` is a DataError
    spec, text = config.spec, config.spec.partition(":")[2]
    files, notes = _files(spec, text)
    splits, problems = _open(files)
    if problems := problems or _choose_columns(config, splits, notes):
        raise data_error(spec, problems, hint=_HINT)
    for split in [split for split in splits if split != "train"]:
        if all(table.label is None or table.labels() <= {None, -1} for table in splits[split]):
            notes.append(f"{split} has no labelled image and is not used")
            del splits[split]
    test, validation = roles(splits, config, notes)
    names, is_named = _class_names(spec, splits)
    return Source(
        f"parquet {listed([text])}",
        names,
        _part(splits["train"]),
        _part(splits[test]) if test else None,
        _part(splits[validation]) if validation else None,
        named_classes=is_named,
        notes=tuple(notes),
    )


def _part(tables: Sequence[_Table]) -> Part:
    meaning = repr([(table.image, table.label, table.numbers and list(table.numbers)) for table in tables])
    files, count = tuple(table.path for table in tables), sum(table.num_rows for table in tables)
    return Part(lambda: (sample for table in tables for sample in table.samples()), files, meaning, count)


# --- which file is of which split ---


def _files(spec: str, text: str) -> tuple[dict[str, list[Path]], list[str]]:
    """Files by split, and what is to be said of them."""
    paths = spec_paths(spec, text, "parquet file or folder")
    inside = [[file for found in path.found for file in _parquet_files(found)] for path in paths]
    if empty := [path.written for path, files in zip(paths, inside, strict=True) if not files]:
        hint = "folders of images: folder:DIR"
        raise data_error(spec, [f"no *.parquet file in {written}" for written in empty], hint=hint)
    if len(paths) == 1:
        (path,) = paths
        if path.found[0].is_file() and not path.is_glob:
            return {"train": inside[0]}, []
        base = path.base if path.is_glob else path.found[0]
        splits, notes = by_name(spec, inside[0], base, is_chosen=path.is_glob)
    else:
        base, splits, notes = Path(), {}, []
        names = [_said(path, files) for path, files in zip(paths, inside, strict=True)]
        for split, files in zip(by_place(spec, paths, names), inside, strict=True):
            splits.setdefault(split, []).extend(files)
    for split in (split for split in SPLITS if split in splits):
        shown = listed([str(file.relative_to(base) if base in file.parents else file) for file in splits[split]], 3)
        notes.append(f"{split} in {shown}")
    folders = [found for path in paths for found in path.found if found.is_dir()]
    if ignored := sum(len(_visible_files(folder)) - len(_parquet_files(folder)) for folder in folders):
        notes.append(f"{plural(ignored, 'other file')} ignored")
    return splits, notes


def _parquet_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in _visible_files(path) if file.suffix.lower() == ".parquet"]


def _visible_files(folder: Path) -> list[Path]:
    files = (file for file in sorted(folder.rglob("*")) if not any(map(is_litter, file.relative_to(folder).parts)))
    return [file for file in files if file.is_file()]


def _said(path: SpecPath, files: Sequence[Path]) -> set[str | None]:
    """The splits that the names of what one path of a spec stands for say."""
    said: set[str | None] = set()
    for found in path.found:
        own = split_of(found.stem if found.is_file() else found.name)
        within = [file.relative_to(found).with_suffix("").parts for file in files if found in file.parents]
        deeper = {split for parts in within for part in parts if (split := split_of(part)) is not None}
        said |= {own} | deeper if own else deeper or {None}
    return said


def _open(files: Mapping[str, Sequence[Path]]) -> tuple[dict[str, list[_Table]], list[str]]:
    import pyarrow.parquet as pq

    splits: dict[str, list[_Table]] = {}
    problems = []
    for split, paths in files.items():
        tables = splits.setdefault(split, [])
        for path in paths:
            try:
                with pq.ParquetFile(path) as file:
                    str(file.schema_arrow)  # reads all names, which may be no UTF-8
                    tables.append(_Table(path, file.schema_arrow, file.metadata.num_rows))
            except Exception as error:  # noqa: BLE001 - a foreign file makes Arrow stumble over whatever is in it
                problems.append(f"{path} is not a readable parquet file: {one_line(str(error))}")
    return splits, problems


# --- which column holds what ---


def _choose_columns(config: DataConfig, splits: Mapping[str, Sequence[_Table]], notes: list[str]) -> list[str]:
    """Set the columns of every table; returns what is wrong with them, adds to what is to be said."""
    train = splits["train"]
    image, image_problem = _image_column(config.image_column, train[0])
    label, label_problem = _label_column(config.label_column, train, notes)
    problems = [f"{train[0].path}: {problem}" for problem in (image_problem, label_problem) if problem]
    if not image or not label or problems:
        return problems
    if image.path[0] not in _IMAGE_NAMES:
        notes.append(f"images in column {image.name}")
    for split, tables in splits.items():
        for table in tables:
            found = _find(table.schema, image.name)
            table.image, reason = _encoded(found) if found else (None, "")
            table.label = _find(table.schema, label.name)
            twice = [column.path[0] for column in (image, label) if table.schema.names.count(column.path[0]) > 1]
            problems += [f"{table.path}: several columns are called {name}" for name in twice]
            if table.image is None:
                problems.append(f"{table.path}: {reason or _absent(image.path[0], table)}")
            if table.label is None:
                named = _called((*_LABEL_NAMES, *_OTHER_LABEL_NAMES), table.schema.names)
                if split == "train" or named:  # else the split has no labels
                    problems.append(f"{table.path}: {_absent(label.name, table)}")
            elif reason := _no_label(table.label):
                problems.append(f"{table.path}: {reason}")
    return problems


def _called(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those names that are wanted, in any case, in the order in which they are wanted."""
    return sorted((name for name in names if name.lower() in wanted), key=lambda name: wanted.index(name.lower()))


def _one_of(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The first wanted name that is there as written; else in another case, where one name alone is."""
    found = _called(wanted, names)
    return next((name for name in found if name in wanted), found[0] if len(found) == 1 else None)


def _absent(name: str, table: _Table) -> str:
    return f"no column {name}; columns: {listed(table.schema.names, 30)}"


def _find(fields: Any, name: str, above: tuple[str, ...] = ()) -> _Column | None:
    """The column, or the field of a struct, with a dotted name; None where there is none."""
    import pyarrow as pa

    for part in fields:
        kind = part.type.value_type if pa.types.is_dictionary(part.type) else part.type
        if part.name == name:
            return _Column((*above, name), kind)
        if name.startswith(f"{part.name}.") and pa.types.is_struct(kind):
            return _find(kind, name.removeprefix(f"{part.name}."), (*above, part.name))
    return None


def _image_column(wanted: str | None, table: _Table) -> tuple[_Column | None, str]:
    if name := wanted or _one_of(_IMAGE_NAMES, table.schema.names):
        column = _find(table.schema, name)
        return _encoded(column) if column else (None, _absent(name, table))
    columns = [column for name in table.schema.names if (column := _find(table.schema, name))]
    found = [encoded for column in columns if (encoded := _encoded(column)[0])]
    return (found[0], "") if len(found) == 1 else (None, _absent("image", table))


def _encoded(column: _Column) -> tuple[_Column | None, str]:
    """Where in a column the bytes of images are, or why there are none."""
    import pyarrow as pa

    name = column.name
    if pa.types.is_struct(column.type):
        fields = [part.name for part in column.type]
        # Only the bytes are read: a path may give the class away.
        inner = _find(column.type, "bytes", column.path)
        if inner is None:
            return None, f"column {name} must have a field bytes, has: {', '.join(fields)}"
        column = inner
    kind = column.type
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    if any(is_kind(kind) for is_kind in is_bytes):
        return column, ""
    why = ""
    if pa.types.is_nested(kind):
        why = "; one encoded image a row is needed, not a list of images or of pixels"
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        why = "; images as paths, addresses or base64 are not read"
    return None, f"column {name} must be struct<bytes, path> or binary, is {kind}{why}"


def _label_column(wanted: str | None, train: Sequence[_Table], notes: list[str]) -> tuple[_Column | None, str]:
    table, names = train[0], train[0].schema.names
    if name := wanted or _one_of(_LABEL_NAMES, names):
        if not wanted and name not in _LABEL_NAMES:
            notes.append(f"labels in column {name}")
        column = _find(table.schema, name)
        return (column, _no_label(column)) if column else (None, _absent(name, table))
    with_names = [name for name in names if _names_of_classes(table.schema, (name,))]
    likely = with_names or _called(_OTHER_LABEL_NAMES, names)
    columns = [column for name in likely if (column := _find(table.schema, name)) and not _no_label(column)]
    if not columns:
        return None, _absent("label", table)
    finest = columns[0] if len(columns) == 1 else _finest(columns, train)
    if finest is None:
        return None, f"which of these columns holds the label is unclear: {listed([column.name for column in columns])}"
    coarser = [column.name for column in columns if column is not finest]
    finer = f", which says more than {listed(coarser)}" if coarser else ""
    notes.append(f"labels in column {finest.name}{finer}")
    return finest, ""


def _finest(columns: Sequence[_Column], train: Sequence[_Table]) -> _Column | None:
    """The column whose values decide those of all others, one with text before one with numbers."""
    import pyarrow as pa

    if any(_find(table.schema, column.name) is None for table in train for column in columns):
        return None
    rows = {row for table in train for row in table.rows(*columns)}
    deciding = [column for i, column in enumerate(columns) if len({row[i] for row in rows}) == len(rows)]
    return min(deciding, key=lambda column: not pa.types.is_string(column.type), default=None)


def _no_label(column: _Column) -> str:
    """Why a column cannot hold labels; empty where it can."""
    import pyarrow as pa

    kind = column.type
    is_label = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean,
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null,
    )  # fmt: skip
    if any(is_kind(kind) for is_kind in is_label):
        return ""
    if pa.types.is_struct(kind):
        fields = [f"{column.name}.{part.name}" for part in kind]
        return f"column {column.name} is a struct; data.label_column can be {listed(fields)}"
    return f"column {column.name} must hold one integer, text, float or truth value a row, is {kind}"


# --- which label is which class ---


def _class_names(spec: str, splits: Mapping[str, Sequence[_Table]]) -> tuple[tuple[str, ...], bool]:
    """Names of the classes in order, and whether the data has them; numbers the labels of every table."""
    import pyarrow as pa

    tables = [table for some in splits.values() for table in some]
    numbered = [table for table in tables if table.label and pa.types.is_integer(table.label.type)]
    stated = {_names_of_classes(table.schema, table.label.path) for table in numbered if table.label} - {()}
    if len(stated) > 1:
        problem = "the files disagree on the names of the classes: they are of different data sets"
        raise data_error(spec, [problem], hint=_HINT)
    if stated and len(numbered) == len(tables):
        return stated.pop(), True
    labels = {split: {label for table in some for label in table.labels()} - {None} for split, some in splits.items()}
    problems = []
    everything = set().union(*labels.values())
    kinds = {"text" if isinstance(label, str) else "numbers" for label in everything}
    if fractions := sorted(label for label in everything if isinstance(label, float)):
        problems.append(
            f"labels are classes, so whole numbers or text; here are fractions: {listed([*map(str, fractions)], 3)}"
        )
    if len(kinds) > 1:
        problems.append("labels are text in some files and numbers in others")
    if not labels["train"] - {-1}:
        problems.append("no training image has a label")
    if problems:
        raise data_error(spec, problems, hint=_HINT)
    is_text = kinds == {"text"}
    classes = [label for label in everything if is_text or label >= 0]
    classes.sort(key=natural_key if is_text else None)
    numbers = {label: number for number, label in enumerate(classes)}
    for table in tables:
        table.numbers = numbers
    is_truth = all(isinstance(label, bool) for label in classes)
    names = tuple(str(label).lower() if is_truth else str(label) for label in classes)
    return names, is_text or is_truth


def _names_of_classes(schema: Any, path: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes that Hugging Face's `datasets` keeps for a column as JSON in the schema; none: empty."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        for name in path:
            found = found[name]
        names = found["names"]
    except (ValueError, LookupError, TypeError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()
