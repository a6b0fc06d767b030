"""What stops a write: a full or read-only disk, a quota, a permission, and the one line that says so."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.base.errors import NasError, one_line

ROOM = "make room there"
PERMISSION = "let this user write there, or choose another folder"
ADVICE = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EROFS: "make that file system writable",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EIO: "look at that disk (`dmesg`)",
}
"""What is to be done, by the number of the error."""
TORCH_WORDS = re.compile(
    "PytorchStreamWriter failed writing|unexpected pos|iostream error"
)  # all that it says of a write
RUST_WORDS = re.compile(
    r"(?:os error|Os \{ code:) (\d+)"
)  # in a SafetensorError, new or old, which base does not import


class DiskError(NasError):
    """A file cannot be written: nothing of it is left behind, and what was finished before is kept."""


def disk_error(error: BaseException) -> DiskError | None:
    """The line for an exception whose cause is a disk, a quota or a permission; None: it has another one."""
    if isinstance(error, DiskError):
        return error
    if isinstance(error, OSError):
        return _described(error, error.filename) if error.errno in ADVICE else None
    if (found := RUST_WORDS.search(str(error))) and int(found[1]) in ADVICE:
        return _described(OSError(int(found[1]), os.strerror(int(found[1]))), None)
    if TORCH_WORDS.search(str(error)):
        return _described(OSError(errno.ENOSPC, "no room, or a limit on the size of files"), None)
    return None


@contextmanager
def writing(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn what stops the writing of a file (or folder) within a block into a DiskError that names it.

    `num_bytes` is how large it is to be, where that is known.
    """  # noqa: DOC501 - of what it raises only a DiskError is its own
    try:
        yield
    except NasError:
        raise
    except Exception as error:
        found = disk_error(error)
        cause = error if isinstance(error, OSError) else found and found.__cause__
        if cause is None:
            raise
        raise _described(cause, path, num_bytes) from error


def check_writable(path: Path) -> None:
    """Find out, before long work for it, whether a file or folder can be written: the nearest folder takes a file.

    Raises:
        DiskError: It cannot.
    """
    above = ([path] if path.is_dir() else []) + list(path.absolute().parents)
    with writing(path), tempfile.TemporaryFile(dir=next(folder for folder in above if folder.exists())):
        pass


def _described(error: BaseException, path: object, num_bytes: int | None = None) -> DiskError:
    number = error.errno if isinstance(error, OSError) else None
    reason = one_line((error.strerror if isinstance(error, OSError) else None) or str(error))
    text = f"{path}: not written: {reason}" if path else f"standard output, or a file, cannot be written: {reason}"
    facts = [] if num_bytes is None else [f"{num_bytes:,} bytes are needed"]
    if number in (errno.ENOSPC, None) and path:
        facts += _free(Path(os.fsdecode(path)) if isinstance(path, bytes) else Path(str(path)))
    told = DiskError(
        text + (f" ({', '.join(facts)})" if facts else ""),
        hint=f"{ADVICE.get(number or 0, PERMISSION)}; what is finished is kept, and the same command goes on",
    )
    told.__cause__ = error
    return told


def _free(path: Path) -> list[str]:
    """How much room there is in the nearest folder that exists."""
    try:
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        return [f"{shutil.disk_usage(folder).free:,} are free"]
    except (OSError, StopIteration):
        return []
