"""Where images come from: a data spec becomes a source of labelled, encoded images, or one clear error."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from nas.base import DataError, expanded
from nas.data.folder_source import folder_source, unlabelled_source
from nas.data.parquet_source import parquet_source
from nas.data.samples import Sample, Source
from nas.data.split_names import is_there
from nas.data.timm_source import PACKAGES, timm_source
from nas.settings import DataConfig, is_own

OWN_HINT = "nas.search(..., data=...) and nas.load(run, data=...) with the same data set"
_DATA_HELP = (
    "digits | folder:DIR | images:DIR | parquet:PATH | folder or parquet:TRAIN[,VALIDATION],TEST | torch/NAME:DIR | "
    "hfds/NAME[:DIR] | wds/:DIR"
)


def open_source(config: DataConfig) -> Source:
    """The source that the data spec names. Looks at paths, folders and schemas; decodes no image.

    Raises:
        DataError: Unknown spec, missing path, no or empty classes, wrong columns, unknown timm data set.
    """
    spec = config.spec
    kind, _, rest = spec.partition(":")
    columns = [key for key in ("image_column", "label_column") if getattr(config, key) is not None]
    if columns and kind != "parquet":
        raise DataError(f"{spec}: data.{columns[0]} is for parquet files", hint="leave it out, or write parquet:PATH")
    if spec == "digits":
        return _digits()
    if kind == "folder" and rest:
        return folder_source(config)
    if kind == "images" and rest:
        return unlabelled_source(config)
    if kind == "parquet" and rest:
        return parquet_source(config)
    if is_own(spec):
        raise DataError(f"{spec}: its images are in a Python program", hint=OWN_HINT)
    prefix, slash, name = kind.partition("/")
    if slash and prefix.lower() in PACKAGES and not Path(spec).exists():
        return timm_source(config, prefix.lower(), name, rest)
    if kind in ("folder", "images", "parquet"):
        raise DataError(f"{spec!r}: a path must follow {kind}:", hint=f"data is one of: {_DATA_HELP}")
    if kind == "digits":
        raise DataError(f"{spec!r}: digits is bundled and takes no path", hint="write just: digits")
    if not slash and prefix in PACKAGES:
        raise DataError(f"{spec!r} names no data set", hint=f"write {prefix}/NAME:DIR, as timm does")
    if expanded(spec).exists():
        kind = "parquet" if spec.endswith(".parquet") else "folder"
        raise DataError(f"{spec!r} is a path, not a data spec", hint=f'did you mean "{kind}:{spec}"?')
    words = ["digits", "folder", "images", "parquet", *PACKAGES]
    close = difflib.get_close_matches(prefix.lower(), words, n=1)
    guess = f'did you mean "{close[0] + spec[len(prefix) :]}"? ' if close else ""
    raise DataError(f"unknown data spec {spec!r}", hint=f"{guess}data is one of: {_DATA_HELP}")


def spec_at(spec: str, folder: Path) -> str | None:
    """The same data spec with relative paths that start at a folder; None where one of them is not there.

    Names of what is downloaded or bundled have no path and stay as they are.
    """
    kind, _, rest = spec.partition(":")
    words, found = rest.split(",") if kind in ("folder", "images", "parquet") else [rest], []
    while words and rest:
        ends = range(len(words), 0, -1)  # a path may hold commas
        path = ((str(folder / expanded(",".join(words[:end]).strip())), end) for end in ends)
        there = next(((written, end) for written, end in path if is_there(written)), None)
        if there is None:
            return None
        found.append(there[0])
        del words[: there[1]]
    return f"{kind}:{','.join(found)}" if found else spec


def _digits() -> Source:
    def read() -> Iterator[Sample]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = (bunch.images * (255 / 16)).round().astype("uint8")
        for row, label in enumerate(bunch.target):
            yield Sample(f"digits image {row}", int(label), Image.fromarray(pixels[row]))

    return Source("digits (scikit-learn)", tuple("0123456789"), read, None)
