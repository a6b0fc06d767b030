"""Where decoded images are kept, what is there, and how it is swept."""

import atexit
import errno
import fcntl
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nas.base import DataError, NasError, Reporter, remove, sweep, writing

_OURS = re.compile(r"[0-9a-f]{32}\.index|\.[0-9a-f]{32}\.lock")


def store_folder(reporter: Reporter | None = None) -> Path:
    """`cache_folder`; where that cannot be, one that is gone with this process, whose children find it in NAS_CACHE.

    The reporter, if any, is told so.

    Raises:
        DiskError: There is no temporary folder either.
    """
    try:
        return cache_folder()
    except (NasError, OSError) as error:
        reason = error.message if isinstance(error, NasError) else str(error)
    root = Path(tempfile.gettempdir())
    with writing(root):
        folder = Path(tempfile.mkdtemp(prefix=f"nas-images-{os.getpid()}-", dir=root))
    os.environ["NAS_CACHE"] = str(folder)
    atexit.register(_forget, folder, os.getpid())
    if reporter is not None:
        reporter.line("warning", f"no cache, images are decoded anew by every command: {reason}")
    return folder


def _forget(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves it alone
        remove(folder)


def cache_folder() -> Path:
    """Where decoded images are kept, made where it is missing: NAS_CACHE, else `vit-front/images` in the user's cache.

    Raises:
        DataError: There is no home.
        DiskError: It cannot be made, or written to.
    """  # noqa: DOC501 - `writing` makes the other one a DiskError
    named = os.environ.get("NAS_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(named).expanduser() if named else Path(cache).expanduser() / "vit-front" / "images"
    except RuntimeError as error:
        raise DataError("there is no home folder to keep decoded images in", hint="NAS_CACHE names a folder") from error
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Stored images as they are listed."""

    name: str  # where the images are from
    images: int  # rows, also those of unreadable images
    side: int  # pixels
    num_bytes: int
    used_at: float  # seconds since 1970, when a process last opened it
    in_use: bool  # a process of this machine has it open
    path: Path


def stored_files() -> list[StoredFile]:
    """All stored images, the last used first."""
    found = []
    for path in cache_folder().glob("*.images"):
        match = re.fullmatch(r"(.+)-(\d+)x(\d+)-[0-9a-f]{32}\.images", path.name)
        if match:
            status = path.stat()
            found.append(
                StoredFile(
                    name=match[1],
                    images=int(match[2]),
                    side=int(match[3]),
                    num_bytes=status.st_size,
                    used_at=status.st_mtime,
                    in_use=_is_open(path),
                    path=path,
                )
            )
    return sorted(found, key=lambda file: -file.used_at)


def sweep_store() -> list[StoredFile]:
    """Delete all stored images that no process of this machine has open, and what killed processes left; returns them.

    Raises:
        DiskError: A file cannot be deleted.
    """
    folder, gone = cache_folder(), [file for file in stored_files() if not file.in_use]
    with writing(folder):
        for path in (file.path for file in gone):
            path.unlink(missing_ok=True)
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):  # others' files are none of ours, wherever NAS_CACHE is
                path.unlink(missing_ok=True)
        sweep(folder.glob(".*.tmp"))
    return gone


def _is_open(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
