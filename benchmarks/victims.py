"""Processes to be killed, and those that outlive it: by a word of their command line, by a mark, by their session."""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil


def named(process: psutil.Process, word: str) -> bool:
    """Whether a word is in a process's command line."""
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:
        return False


def processes_of(variable: str, value: str) -> list[psutil.Process]:
    """All that live and have an environment variable of this value, but for this process."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def of_session(leader: int) -> list[psutil.Process]:
    """All that live in the session of a process, which may be dead."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


class Fork:
    """A function's exit code in a process of its own and a session of its own, as far as `subprocess.Popen` is used.

    It has what this process has imported, so it starts at once. Its standard error goes to the end of a file.
    """

    def __init__(self, function: Callable[[], int], stderr: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
                code = function()
                atexit._run_exitfuncs()
                sys.stdout.flush()
            except BaseException as error:  # noqa: BLE001 - as where Python ends
                sys.excepthook(type(error), error, error.__traceback__)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it lives."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its exit code."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode
