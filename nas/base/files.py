"""Files that are never half-written, and read without surprises: atomic writes, JSON, schema versions."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from nas.base.disk import writing
from nas.base.errors import RunError
from nas.base.scratch import remove, scratch_path, sweep

SCHEMA_VERSION = 1
MOST_BYTES = 1 << 30  # of a file that is read whole; a million trials are two thirds of it


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content: a reader, or a crash at any instant, sees the old bytes or the new ones.

    Raises:
        DiskError: It cannot be written; the old content is still there.
    """
    with replacing(path, len(content)) as scratch, scratch.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path, num_bytes: int | None = None) -> Iterator[Path]:
    """Lend a name for a file, or a folder, that takes a path's place when the block ends well, and vanishes when not.

    What killed processes have left of the same path is removed. `num_bytes` is its size, where that is known.

    Raises:
        DiskError: It cannot be written; names `path`.
    """
    scratch = scratch_path(path)
    with writing(path, num_bytes):
        sweep(path.parent.glob(f".{escape(path.name)}.*.tmp"))
        try:
            yield scratch
            scratch.replace(path)
        except BaseException:
            remove(scratch)
            raise
        sync_folder(path.parent)


def atomic_write_text(path: Path, content: str) -> None:
    """`atomic_write_bytes` of UTF-8."""
    atomic_write_bytes(path, content.encode())


def sync_folder(folder: Path) -> None:
    """Make the names within a folder last a power cut: what was created, renamed or removed there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def expanded(written: str) -> Path:
    """A path whose `~` is a home, where there is such a user."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        return Path(written)


def to_json_text(values: Any) -> str:
    """JSON as it is written into a run: sorted, indented; a RunError where a number is not finite."""
    try:
        return json.dumps(values, sort_keys=True, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise RunError(f"not written, because JSON cannot hold it: {error}") from error


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A file's content; an OSError: there is none, it is larger than `most` bytes, or a pipe, which may never end."""
    if path.is_fifo() and not path.is_relative_to("/dev"):  # /dev/fd/63 is what a shell's <(...) gives
        raise OSError(errno.EINVAL, "it is a pipe, not a file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; a ValueError where it is none, holds what is no finite number, or is nested deeply."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a number")


def read_json(path: Path) -> Any:
    """The value of a JSON file; an OSError where it cannot be read, a ValueError as of `parse_json`."""
    return parse_json(read_bytes(path).decode())


def check_schema(values: Any, source: object) -> None:
    """Raise a RunError where `schema_version` is missing, no number, or newer than this program's."""
    version = values.get("schema_version") if isinstance(values, Mapping) else None
    if type(version) is not int or version < 1:
        raise RunError(f"{source}: schema_version must be a positive number, got {version!r}")
    if version > SCHEMA_VERSION:
        text = f"{source}: schema_version {version} is newer than this program reads ({SCHEMA_VERSION})"
        raise RunError(text, hint="upgrade this program, or look at the run with the version that wrote it")
