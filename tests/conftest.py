"""A run and a browser that several modules look at and with."""

import contextlib
import gc
import json
import os
import resource
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ["NAS_CACHE"] = tempfile.mkdtemp(prefix="nas-test-images-")  # not the user's own
# Workers of two threads each wait for one another on two cores, and sums of two threads differ in the last bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.set_threshold(10_000, 20, 20)  # an eighth of the inner loop was the collector's, looking at what was imported


def pytest_unconfigure():
    shutil.rmtree(os.environ["NAS_CACHE"], ignore_errors=True)


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


@pytest.fixture
def small_files():
    """No file may grow beyond 1,000 bytes, as with `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; only for tests marked `needs_browser`."""
    from report_browser import chromium

    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def latency_run(tmp_path_factory):
    """A search on two targets."""
    from small_runs import command, run_arguments

    folder = tmp_path_factory.mktemp("latency") / "run"
    targets = ("--target=torch-cpu-packed:batch=16", "--target=torch-cpu:batch=8,precision=bf16")
    done = command(*run_arguments(folder, "--trials=6", *targets))
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def page_run(tmp_path_factory):
    """A run that was never searched: its trials are made up, three failed."""
    from report_runs import COUNT, lost_trials, made_trials, make_run, page_space

    trials = [*made_trials(COUNT), *lost_trials(3, COUNT)]
    largest = page_space().largest().digest
    return make_run(tmp_path_factory.mktemp("runs") / "page-1", trials, reference_digest=largest, seed=7)


@pytest.fixture(scope="module")
def trusted_run(finished, tmp_path_factory):
    """A copy of a finished run, and what `trust` says of it."""
    from small_runs import command, one_thread
    from trust_records import CHEAP

    folder = tmp_path_factory.mktemp("trust") / "r"
    shutil.copytree(finished.folder, folder)
    with one_thread():
        done = command("trust", folder, *CHEAP)
    assert done.code == 0, done.stderr
    return folder, json.loads(done.stdout)
