"""Names for what is not whole yet, and the removal of what killed processes have left of it.

A scratch name holds the process and the machine that write it. Whoever writes beside it later removes it once that
process is gone; those of other machines are never touched, for nobody here knows whether they still write.
"""

import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.base.disk import writing

SCRATCH = re.compile(r"\..+\.(\d+)(?:-([0-9a-f]{6}))?\.[0-9a-f]{8}\.tmp")
TEMPORARY = re.compile(r"nas-[a-z-]+?-(\d+)-\w+")


def scratch_path(path: Path) -> Path:
    """A name beside `path` that no other process takes, hidden, for a file or folder that will replace it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_machine()}.{secrets.token_hex(4)}.tmp")


def sweep(paths: Iterable[Path]) -> None:
    """Remove those that are scratch files or folders of processes of this machine that are gone."""
    for path in paths:
        match = SCRATCH.fullmatch(path.name)
        if match and match[2] in (None, _machine()) and not _is_alive(int(match[1])):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # a disk that is read-only keeps it; the next who may write removes it
            return


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Lend a private folder for the duration of a block; those that killed processes have left are removed.

    `kind` is part of its name: lower-case letters.
    """
    with writing(Path("a temporary folder")):
        root = Path(tempfile.gettempdir())
    for left in root.glob("nas-*"):
        match = TEMPORARY.fullmatch(left.name)
        if match and not _is_alive(int(match[1])):
            shutil.rmtree(left, ignore_errors=True)
    with writing(root):
        folder = Path(tempfile.mkdtemp(prefix=f"nas-{kind}-{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    """Six letters for this machine, or container."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True
