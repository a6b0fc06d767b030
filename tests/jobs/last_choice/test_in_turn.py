"""Candidates are timed in turn before some of them go: a search's times are of other moments."""

import json
import shutil
from dataclasses import replace

import pytest
from small_runs import command, one_thread, run_arguments

from nas.base.metrics import LATENCY, MACS
from nas.base.progress import Reporter
from nas.jobs.last_choice import in_turn
from nas.jobs.last_choice.in_turn import KEPT, timed_in_turn
from nas.jobs.session import reopen
from nas.model.supernet import Supernet
from nas.runs.point import points_of


@pytest.fixture(scope="module")
def timed_run(tmp_path_factory):
    """A run that searched for latency, too."""
    folder = tmp_path_factory.mktemp("timed") / "r"
    done = command(*run_arguments(folder, "--trials=6", "--set=search.objectives=[top1, macs, latency_ms]"))
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def session(timed_run, tmp_path):
    shutil.copytree(timed_run, tmp_path / "r")
    return reopen(tmp_path / "r", Reporter(quiet=True))


def slowed(point, factor):
    """A point that a busy moment made so many times as slow."""
    before = point.measurement
    late = before.latency[LATENCY.name].scaled(factor)
    return replace(point, measurement=replace(before, latency={**before.latency, LATENCY.name: late}))


def ms(points):
    return [point.value(LATENCY) for point in points]


def test_a_time_of_a_busy_moment_decides_nothing(session):
    space, found = session.space, sorted(points_of(session.run.trials()), key=lambda point: point.value(MACS))
    cheap, middle, dear = found[0], found[len(found) // 2], found[-1]
    points = [cheap, slowed(middle, 50.0), dear]
    with one_thread():
        timed = timed_in_turn(session, Supernet(space), points, [LATENCY])
    assert [point.digest for point in timed] == [point.digest for point in points]
    assert ms(timed)[1] < ms(points)[1] / 5


def test_the_first_rung_of_finalists_decides_by_these_times(session):
    folder = session.run.path
    found = command("finalists", folder, "--count=4", "--epochs=3", "--workers=0")
    assert found.code == 0, found.stderr
    rows = json.loads(found.stdout)["candidates"]
    times = json.loads((session.run.finalists_dir / KEPT).read_text())[LATENCY.name]
    assert set(times) == {row["digest"] for row in rows}

    def beaten(row):
        no_dearer = [
            other["trained"][0]
            for other in rows
            if other is not row and other["macs"] <= row["macs"] and times[other["digest"]] <= times[row["digest"]]
        ]
        return max(no_dearer, default=-100.0) - row["trained"][0]

    on, out = ([row for row in rows if (row["trained"][1] is not None) == is_on] for is_on in (True, False))
    assert len(on) == len(out) == 2
    assert max(map(beaten, on)) <= min(map(beaten, out))


def test_what_was_timed_is_kept_for_a_job_that_goes_on_and_for_these_alone(session, monkeypatch):
    points = list({point.digest: point for point in points_of(session.run.trials())}.values())[:3]
    supernet = Supernet(session.space)
    with one_thread():
        first = timed_in_turn(session, supernet, points, [MACS, LATENCY])
    kept = json.loads((session.run.finalists_dir / KEPT).read_text())
    assert kept == {LATENCY.name: dict(zip([p.digest for p in points], ms(first), strict=True))}
    real = in_turn.measure_networks
    monkeypatch.setattr(in_turn, "measure_networks", lambda *_: pytest.fail("timed again"))
    assert ms(timed_in_turn(session, supernet, [slowed(p, 2) for p in points], [MACS, LATENCY])) == ms(first)
    monkeypatch.setattr(in_turn, "measure_networks", real)
    with one_thread():
        timed_in_turn(session, supernet, points[:2], [MACS, LATENCY])
    assert len(json.loads((session.run.finalists_dir / KEPT).read_text())[LATENCY.name]) == 2


def test_without_a_latency_among_the_costs_nothing_is_timed(session):
    points = points_of(session.run.trials())[:2]
    assert timed_in_turn(session, Supernet(session.space), points, [MACS]) == points
    assert not (session.run.finalists_dir / KEPT).exists()
