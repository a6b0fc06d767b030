"""A study in PostgreSQL, killed from both sides; and optuna-dashboard over what a search is writing."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from search_fakes import AnalyticEvaluator, outline, search
from storage_driver import HELD_AFTER, search_in, small_space

from nas.arch.architecture import Architecture
from nas.runs.directory import RunDirectory
from nas.runs.trial import Measurement, Trial

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1] / "helpers"
NUM_TRIALS = 18
PASSWORD = "correct-horse"


class Postgres:
    """A PostgreSQL server of the tests' own, on a socket in a folder that its user may enter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = postgres_programs()
        self._data = folder / "data"
        self.url = f"postgresql+psycopg://postgres:{PASSWORD}@/postgres?host={folder}"
        self._call("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8")
        self.start()

    def start(self) -> None:
        options = f"-F -k {self._folder} -c listen_addresses=''"
        self._call("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def kill(self) -> None:
        """All of its processes, as a power cut would."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "--mode=immediate")

    def _call(self, program: str, *arguments: str) -> None:
        # As root it refuses to run.
        prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*prefix, self._programs / program, f"--pgdata={self._data}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)


def postgres_programs() -> Path:
    """Where the server's programs are; Debian keeps them off the PATH."""
    found = shutil.which("pg_ctl")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if found is None and not folders:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found).parent if found else folders[-1]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres_programs()
    if find_spec("psycopg") is None:
        pytest.skip('no driver for PostgreSQL: pip install "psycopg[binary]"')
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))  # pytest's own folders are closed to other users
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, ...]:
    """The search of these tests, undisturbed, over a journal."""
    return search_in(
        "journal", tmp_path_factory.mktemp("straight") / "run", NUM_TRIALS, AnalyticEvaluator(small_space().backbone)
    )


def start(folder: Path, log: Path, storage: str) -> subprocess.Popen:
    log.touch()
    paths = [HERE, HERE.parent, HERE.parents[1]]
    return subprocess.Popen(
        [sys.executable, HERE / "storage_driver.py", folder, log, str(NUM_TRIALS), storage],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_evaluations(driver: subprocess.Popen, log: Path, number: int) -> None:
    while driver.poll() is None and len(log.read_text().split()) < number:
        time.sleep(0.005)


def finished(folder: Path) -> set[str]:
    if not folder.exists():
        return set()
    return {trial.architecture.digest for trial in RunDirectory.open(folder).trials() if not trial.is_running}


def assert_same(folder: Path, straight: tuple[Trial, ...]) -> None:
    trials = tuple(RunDirectory.open(folder).trials())
    assert outline(trials) == outline(straight)
    assert [t.measurement.values for t in trials] == [t.measurement.values for t in straight]


def test_a_search_over_postgresql_whose_driver_is_killed_ends_as_one_over_a_journal_that_was_not(
    postgres, straight, tmp_path
):
    folder, log = tmp_path / "driver-killed", tmp_path / "log"
    for more in (2, 9):
        known, called_before = finished(folder), len(log.read_text().split()) if log.exists() else 0
        driver = start(folder, log, postgres.url)
        wait_for_evaluations(driver, log, called_before + more)
        driver.kill()
        driver.communicate()
        assert driver.returncode == -signal.SIGKILL
        assert not known & set(log.read_text().split()[called_before:])
    known, called_before = finished(folder), len(log.read_text().split())
    assert 0 < len(known) < NUM_TRIALS
    search_in(postgres.url, folder, NUM_TRIALS, AnalyticEvaluator(small_space().backbone, log))
    assert not known & set(log.read_text().split()[called_before:])
    assert_same(folder, straight)


def test_a_search_whose_server_is_killed_ends_with_one_error_and_goes_on_once_it_is_back(postgres, straight, tmp_path):
    folder, log = tmp_path / "server-killed", tmp_path / "log"
    for more in (1, 8):
        known, called_before = finished(folder), len(log.read_text().split()) if log.exists() else 0
        driver = start(folder, log, postgres.url)
        wait_for_evaluations(driver, log, called_before + more)
        postgres.kill()
        _, words = driver.communicate()
        postgres.start()
        assert driver.returncode == 2, words
        error, hint = words.splitlines()
        assert "postgresql+psycopg://postgres:***@/postgres" in error
        assert PASSWORD not in words
        assert "same command" in hint
        assert not known & set(log.read_text().split()[called_before:])
    known, called_before = finished(folder), len(log.read_text().split())
    assert 0 < len(known) < NUM_TRIALS
    search_in(postgres.url, folder, NUM_TRIALS, AnalyticEvaluator(small_space().backbone, log))
    assert not known & set(log.read_text().split()[called_before:])
    assert_same(folder, straight)


class _Restarting(AnalyticEvaluator):
    """Its first evaluation sees the server killed and started again."""

    def __init__(self, server: Postgres) -> None:
        super().__init__(small_space().backbone)
        self._server: Postgres | None = server

    def evaluate(self, architecture: Architecture, *arguments: Any, **options: Any) -> Measurement:
        if self._server is not None:
            self._server.kill()
            self._server.start()
            self._server = None
        return super().evaluate(architecture, *arguments, **options)


def test_a_server_that_is_back_before_it_is_asked_again_changes_nothing(postgres, straight, tmp_path):
    search_in(postgres.url, tmp_path / "restarted", NUM_TRIALS, _Restarting(postgres))
    assert_same(tmp_path / "restarted", straight)


def test_two_runs_share_a_database(postgres, straight, tmp_path):
    for name in ("shared-1", "shared-2"):
        search_in(postgres.url, tmp_path / name, 8, AnalyticEvaluator(small_space().backbone))
        found = outline(tuple(RunDirectory.open(tmp_path / name).trials()))
        assert found == outline(straight)[: len(found)]
        assert [state for _, _, state in found].count("complete") == 8


# --- optuna-dashboard --------------------------------------------------------------------------------------


class Dashboard:
    """`optuna-dashboard STORAGE` as a user starts it."""

    def __init__(self, storage: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self._address.rsplit(":", 1)[1]
        program = Path(sys.executable).parent / "optuna-dashboard"
        self._process = subprocess.Popen(
            [program, storage, "--port", port, "--server", "wsgiref"], stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> "Dashboard":
        while True:
            try:
                self.get("/api/meta")
            except OSError:
                assert self._process.poll() is None
                time.sleep(0.05)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._address + path) as answer:
            return json.load(answer)

    def put(self, path: str, values: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, json.dumps(values).encode(), headers, method="PUT")
        urllib.request.urlopen(request).close()

    def study(self, name: str) -> dict[str, Any]:
        """What its page shows of a study: names of the objectives, trials with their values, the front."""
        studies = self.get("/api/studies")["study_summaries"]
        (number,) = [study["study_id"] for study in studies if study["study_name"] == name]
        return {"id": number, **self.get(f"/api/studies/{number}")}


needs_dashboard = pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed")


def complete(study: dict[str, Any]) -> list[tuple[int, list[float]]]:
    return [(trial["number"], trial["values"]) for trial in study["trials"] if trial["state"] == "Complete"]


def told(trials: tuple[Trial, ...]) -> list[tuple[int, list[float]]]:
    names = ("top1", "macs", "latency_ms")
    return [(t.number, [t.measurement.values[name] for name in names]) for t in trials]


def watch(storage: str, shown: str, home: Path, straight: tuple[Trial, ...]) -> None:
    """Look at a search while it runs, write a note, and look again when it has ended."""
    folder, log = home / "watched", home / "log"
    (home / "hold").touch()
    driver = start(folder, log, storage)
    wait_for_evaluations(driver, log, HELD_AFTER)
    with Dashboard(shown) as dashboard:
        early = dashboard.study(folder.name)
        assert driver.poll() is None
        assert early["objective_names"] == ["top1", "macs", "latency_ms"]
        assert "Running" in [trial["state"] for trial in early["trials"]]
        assert HELD_AFTER - 1 <= len(complete(early)) < len(straight)
        assert all(result in told(straight) for result in complete(early))
        dashboard.put(f"/api/studies/{early['id']}/note", {"body": "looks good", "version": 1})
        (home / "hold").unlink()
        _, words = driver.communicate()
        assert (driver.returncode, words) == (0, "")
        late = dashboard.study(folder.name)
        while len(complete(late)) < len(straight):  # it keeps what it has read for some seconds
            time.sleep(0.1)
            late = dashboard.study(folder.name)
    assert_same(folder, straight)
    assert complete(late) == told(straight)
    assert late["note"]["body"] == "looks good"
    # The note is part of the study from now on, and a finished search can be extended nevertheless.
    search_in(storage, folder, NUM_TRIALS + 1, AnalyticEvaluator(small_space().backbone))
    assert outline(tuple(RunDirectory.open(folder).trials()))[: len(straight)] == outline(straight)


@needs_dashboard
def test_the_dashboard_shows_a_journal_while_it_is_written_and_does_not_disturb_the_search(straight, tmp_path):
    journal = tmp_path / "watched" / "journal.log"
    watch("journal", str(journal), tmp_path, straight)
    assert not list(journal.parent.glob("journal.log.*"))


@needs_dashboard
def test_the_dashboard_shows_a_study_in_postgresql_while_it_is_searched(postgres, straight, tmp_path):
    watch(postgres.url, postgres.url, tmp_path, straight)


@needs_dashboard
def test_the_dashboard_opens_the_journal_of_a_finished_run(tmp_path):
    trials = search(tmp_path / "run", small_space(), trials=8)
    with Dashboard(str(tmp_path / "run" / "journal.log")) as dashboard:
        study = dashboard.study("architectures")
    assert complete(study) == told(trials)
