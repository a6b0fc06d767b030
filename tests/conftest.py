"""A run and a browser that several modules look at and with."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Finished:
    """A run that has ended: where it is, how it was started, what the command printed, and what then lay beside it."""

    folder: Path
    arguments: list[str]
    stdout: str
    stderr: str
    beside: set[str]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """`run` on the tiny space, from its first line to its front. Only to be looked at."""
    from small_runs import TRIALS, command, run_arguments

    home = tmp_path_factory.mktemp("finished")
    arguments = run_arguments(home / "r", "--trials", str(TRIALS))
    with contextlib.chdir(home):
        done = command(*arguments)
    assert done.code == 0, done.stderr
    beside = {path.name for path in home.iterdir()}  # other modules' runs come later, in any order
    return Finished(home / "r", arguments, done.stdout, done.stderr, beside)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; only for tests marked `needs_browser`."""
    from report_browser import chromium

    with chromium() as driver:
        yield driver
