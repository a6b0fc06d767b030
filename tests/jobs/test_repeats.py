"""`search --seeds`: other seeds propose otherwise, pay for nothing twice; the front says what each of them found."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_runs import TRIALS, command

from nas.base.metrics import TOP1
from nas.jobs.repeats import _has
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FOUND_BY, points_of
from nas.runs.results import results_of

SEEDS = 3
AGAIN = (f"--seeds={SEEDS}", "--workers=0")


@pytest.fixture(scope="module")
def repeated(finished, tmp_path_factory):
    """A copy of a finished run that was searched with two more seeds, and what was printed."""
    folder = tmp_path_factory.mktemp("repeats") / "r"
    shutil.copytree(finished.folder, folder)
    done = command("search", folder, *AGAIN, "--format=json")
    assert done.code == 0, done.stderr
    return folder, json.loads(done.stdout)


def searches(folder):
    run = RunDirectory(folder)
    return [run.trials(), *(RunDirectory(run.searches_dir / f"seed-{i}").trials() for i in range(1, SEEDS))]


def digests(trials):
    return {trial.architecture.digest for trial in trials}


def test_each_search_proposes_as_many_architectures_and_pays_for_none_twice(repeated):
    own, *others = searches(repeated[0])
    before = list(own)
    for trials in others:
        assert len(digests(trials)) == len(digests(own)) == TRIALS
        assert digests(trials) != digests(own)
        whole = {t.architecture.digest for t in before if t.whole is not None}
        assert not whole & {t.architecture.digest for t in trials if t.is_paid}
        assert whole & digests(trials)
        before += trials


def test_the_front_is_that_of_all_searches_and_counts_who_found_each_point(repeated):
    folder, values = repeated
    front, found = ParetoFront.from_run(folder), searches(folder)
    points = [point for trials in found for point in points_of(trials)]
    union = ParetoFront.from_points(points, front.objectives)
    assert {p.digest for p in front.points} == {p.digest for p in union.points}
    for point in front.points:
        owners = sum(point.digest in {t.architecture.digest for t in trials if t.whole is not None} for trials in found)
        assert max(owners, 1) <= point.details[FOUND_BY] <= SEEDS
    about = RunDirectory(folder).front()["seeds"]
    assert [row["seed"] for row in about["searches"]] == [0, 1, 2]
    assert about["stable"] == sum(p.details[FOUND_BY] == SEEDS for p in front.points)
    for row, trials in zip(about["searches"], found, strict=True):
        alone = ParetoFront.from_trials(trials, front.objectives)
        assert row["hypervolume"] == pytest.approx(alone.hypervolume())
        assert row["hypervolume"] <= about["hypervolume_union"] + 1e-12
    assert [row["details"][FOUND_BY] for row in values["points"]] == [p.details[FOUND_BY] for p in front.points]
    table = command("front", folder, "--format=table").stdout
    assert "found by" in table
    assert "found_by" in command("front", folder, "--format=csv").stdout.splitlines()[0]


def test_what_other_seeds_found_stays_among_the_candidates(repeated, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(repeated[0], folder)
    run = RunDirectory(folder)
    own, *others = searches(folder)
    found = results_of(run)
    assert set(found.points) == {p.digest for trials in (own, *others) for p in points_of(trials)}
    assert len({trial.number for trial in found.all_trials}) == len(found.all_trials)
    before = {point.digest for point in found.front.points}
    assert command("search", folder, f"--trials={TRIALS + 2}", "--workers=0").code == 0
    front = ParetoFront.from_run(folder)
    again = ParetoFront.from_points([*front.points, *(found.points[digest] for digest in before)], front.objectives)
    assert {p.digest for p in again.points} == {p.digest for p in front.points}


def test_the_same_command_does_nothing_again(repeated, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(repeated[0], folder)
    before = searches(folder)
    assert command("search", folder, *AGAIN).code == 0
    assert command("search", folder, "--seeds=2", "--workers=0").code == 0  # none that was made is left out
    assert len(RunDirectory(folder).front()["seeds"]["searches"]) == SEEDS
    assert [[t.to_dict() for t in trials] for trials in searches(folder)] == [
        [t.to_dict() for t in trials] for trials in before
    ]


def test_a_search_that_was_cut_short_goes_on_and_ends_as_the_undisturbed_one(repeated, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(repeated[0], folder)
    last = RunDirectory(folder).searches_dir / "seed-2"
    shutil.rmtree(last)
    whole = searches(repeated[0])[-1]
    first = RunDirectory(folder).searches_dir / "seed-1"
    lines = (first / "trials.jsonl").read_text().splitlines(keepends=True)
    (first / "trials.jsonl").write_text("".join(lines[: len(lines) // 2]))
    assert command("search", folder, *AGAIN).code == 0
    again = searches(folder)[-1]
    assert [t.architecture.digest for t in again] == [t.architecture.digest for t in whole]


def test_who_found_a_point_goes_by_cost_and_by_the_images_that_one_alone_gets_right(finished):
    front = ParetoFront.from_run(finished.folder)
    point = points_of(RunDirectory(finished.folder).trials())[0]
    objectives = front.objectives
    images = point.measurement.conditions.num_images
    right = np.zeros(images, dtype=bool)
    right[: images // 2] = True

    def with_answers(answers, macs=1.0):
        measured = replace(
            point.measurement,
            top1=100.0 * answers.sum() / images,
            macs=point.measurement.macs * macs,
            correct=np.packbits(answers).tobytes(),
        )
        return replace(point, measurement=measured)

    wanted = with_answers(right)
    one_less, many_less = right.copy(), right.copy()
    one_less[0] = False
    many_less[: images // 4] = False
    assert wanted.value(TOP1) > with_answers(one_less).value(TOP1)
    assert _has([with_answers(one_less)], wanted, objectives)
    assert not _has([with_answers(many_less)], wanted, objectives)
    assert not _has([with_answers(right, macs=1.01)], wanted, objectives)
    assert _has([with_answers(many_less), with_answers(right, macs=0.9)], wanted, objectives)
    assert not _has([], wanted, objectives)


def test_runs_over_several_supernets_are_refused(finished, tmp_path):
    done = command("search", tmp_path / "none", "--seeds=2")
    assert done.code == 2
    done = command("search", finished.folder, "--seeds=0")
    assert done.code == 2
