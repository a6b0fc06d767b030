"""Optuna's journal file, never waited for: it holds nothing that the trials' records do not give back.

A trial that is missing here is proposed again, as it was, because a proposal depends on seed, number and results alone;
and what became of it is told from its record. So any beginning of the file is enough, and it is cut off where a kill or
a power cut left less than a record. The format is that of Optuna's `JournalFileBackend`, so it and optuna-dashboard
read the file; that class waits for the disk after every operation (48 parameters: 46 to 199 ms for a proposal, here 3
ms), a torn last line makes its study unreadable for ever, and a killed writer blocks the next one for 30 s.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from nas.base import RunError, writing

FIRST = b'{"op_code":'


class SearchJournal(BaseJournalBackend):
    """A journal file, made when missing, with one writer and one reader, in this process.

    Raises:
        RunError: The file is being written by another process, or is not a journal.
        DiskError: It cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        with writing(self._path):
            self._file = self._path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a file beside the runs may be that of several
            content = self._path.read_bytes()
            size = _end_of_last_record(content, self._path)
            self._file.truncate(size)
        except BlockingIOError as error:
            self._file.close()
            raise RunError(
                f"{self._path} is being written by another process",
                hint="wait until it ends, or stop it; a journal has one writer",
            ) from error
        except BaseException:
            self._file.close()
            raise
        self._num_old = content.count(b"\n", 0, size)
        self._new: list[dict[str, Any]] = []
        self._first_new = self._num_old  # number of the first record in `_new`

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the records from a number on, new ones never lower than before; a RunError at a damaged line."""
        if log_number_from < self._num_old:
            with self._path.open("rb") as file:
                for number, line in enumerate(islice(file, self._num_old)):
                    if number >= log_number_from:
                        yield _parse(line, number, self._path)
        del self._new[: max(log_number_from - self._first_new, 0)]
        self._first_new = max(log_number_from, self._first_new)
        yield from self._new

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records; a DiskError where the disk is full or failing (an OSError), and the file is as before."""
        # Read back from text: this process then sees exactly what a later one will.
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        text = "".join(f"{line}\n" for line in lines).encode()
        size = os.fstat(self._file.fileno()).st_size  # optuna-dashboard may have added a note
        with writing(self._path, len(text)):
            try:
                if self._file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(size)
                raise
        self._new += map(json.loads, lines)

    def close(self) -> None:
        """Release the file."""
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


def _end_of_last_record(content: bytes, path: Path) -> int:
    """Bytes up to the end of the last whole record."""
    end = content.rfind(b"\n") + 1
    while end:
        start = content.rfind(b"\n", 0, end - 1) + 1
        if _record(content[start:end]) is not None:
            break
        end = start
    # A first record that was cut short is its own beginning, or zeros; anything else is not ours to remove.
    beginning = content.strip(b"\0")[: len(FIRST)]
    if not end and not FIRST.startswith(beginning):
        raise RunError(f"{path} is not an Optuna journal", hint="choose another file")
    return end
