"""Optuna's journal file with one writer and group commits: what lies between commits is kept or lost whole.

Why not `JournalFileBackend`: it waits for the disk after every operation (48 parameters: 46 to 199 ms for a
proposal, here 3 ms), a torn last line makes its study unreadable for ever, and a killed writer blocks the
next one for 30 s. The format is its format, so it and optuna-dashboard read the file.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from nas.base import RunError

# Every record of a commit but its last one ends with this key, which Optuna ignores.
MORE = b',"more":true}'
FIRST = b'{"op_code":'


class GroupCommitJournal(BaseJournalBackend):
    """A journal file held by one process. Appended records are seen at once, and on disk after `commit`.

    Opening cuts off what a killed writer left behind: half a line, or a commit without its end.

    Args:
        path: The file; made when missing.

    Raises:
        RunError: Another process is writing the file, or it is not a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise RunError(f"{self._path}: cannot open the journal: {error.strerror}") from error
        self._buffer: list[bytes] = []
        try:
            self._lock()
            content = self._path.read_bytes()
            self._size = _end_of_last_commit(content, self._path)
            self._file.truncate(self._size)
            os.fsync(self._file.fileno())
        except BaseException:
            self._file.close()
            raise
        self._committed = content.count(b"\n", 0, self._size)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"{self._path} is being written by {_lock_holder(self._file.fileno())}",
                hint="wait until it ends, or stop it; a journal has one writer",
            ) from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from a number on, including those not committed yet.

        Raises:
            RunError: A line is damaged.
        """
        if log_number_from < self._committed:
            with self._path.open("rb") as file:
                for number, line in enumerate(file):
                    if log_number_from <= number < self._committed:
                        yield _parse(line, number, self._path)
        first = max(log_number_from - self._committed, 0)
        for line in self._buffer[first:]:
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records to the coming commit."""
        # Kept as text: this process then sees exactly what a later one will read.
        self._buffer += [json.dumps(log, separators=(",", ":")).encode() for log in logs]

    def commit(self) -> None:
        """Write what was appended since the last commit and wait until it is on disk.

        Raises:
            RunError: The disk is full or failing; the file is as before, and `commit` may be called again.
        """
        if not self._buffer:
            return
        *firsts, last = self._buffer
        text = b"".join(line[:-1] + MORE + b"\n" for line in firsts) + last + b"\n"
        self._size = os.fstat(self._file.fileno()).st_size  # optuna-dashboard may have added a note
        try:
            written = 0
            while written < len(text):
                written += self._file.write(text[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._size)
            raise RunError(
                f"{self._path}: not written: {error.strerror}", hint="free disk space, then resume"
            ) from error
        self._size += len(text)
        self._committed += len(self._buffer)
        self._buffer = []

    def close(self) -> None:
        """Release the file. What was not committed is lost."""
        self._buffer = []
        self._file.close()


def _parse(line: bytes, number: int, path: Path) -> dict[str, Any]:
    record = _record(line)
    if record is None:
        raise RunError(f"{path}, line {number + 1}: not a journal record", hint="restore the file from a copy")
    return record


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _end_of_last_commit(content: bytes, path: Path) -> int:
    """Bytes up to the end of the last whole commit."""
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        line = content[start : end - 1]
        if not line.endswith(MORE) and _record(line) is not None:
            break
        end = start
    # A first commit that was cut short is its own beginning, or zeros; anything else is not ours to remove.
    beginning = content.strip(b"\0")[: len(FIRST)]
    if not end and not FIRST.startswith(beginning):
        raise RunError(f"{path} is not an Optuna journal", hint="choose another file")
    return end


def _lock_holder(descriptor: int) -> str:
    """`process 123` where the kernel tells, else `another process`."""
    inode = os.fstat(descriptor).st_ino
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "another process"
    for fields in map(str.split, locks):
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return f"process {fields[4]}"
    return "another process"
