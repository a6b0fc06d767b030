"""A run over several supernets: shares of the search, resumed trainings, the union of the fronts."""

import contextlib
import json
import shutil
import time
from dataclasses import dataclass

import pytest
from factories import OBJECTIVES
from small_runs import Outcome, command, run_arguments, search_process
from supernet_studies import proposals, studying

from nas.base.errors import RunError
from nas.jobs.session import Budget
from nas.jobs.several import _shares
from nas.runs.directory import RunDirectory
from nas.runs.doubts import doubts_of
from nas.runs.front import ParetoFront
from nas.runs.point import FINALIST
from nas.runs.supernets import owner, ranked, searched_runs, supernet_trials
from nas.runs.training_log import course_of

COUNT = 4

TUNE = {"parameters": {"train.lr": [0.01, 1e9], "space.embed_dim": [[16, 24], [16]]}, "grace": 1, "probes": 4}

OPTIONS = (
    "--epochs=3",
    f"--supernet-trials={COUNT}",
    "--trials=8",
    "--set=evaluate.max_images=100",
    *(f"--set=tune.{key}={json.dumps(value)}" for key, value in TUNE.items() if key != "parameters"),
    *(f"--set=tune.parameters.{key}={json.dumps(value)}" for key, value in TUNE["parameters"].items()),
)

# --- proposals, without Ray -------------------------------------------------------------------------------


def test_the_trials_of_a_search_are_shared_out_whole_and_the_best_supernet_has_no_fewer():
    shares = [share.trials for share in _shares(Budget(trials=8, workers=2), 3)]
    assert sum(shares) == 8
    assert shares == sorted(shares, reverse=True)
    assert [share.minutes for share in _shares(Budget(trials=None, minutes=3.0, workers=2), 2)] == [1.5, 1.5]


# --- a real run, killed and resumed -----------------------------------------------------------------------


@dataclass(frozen=True)
class Resumed:
    """A run whose process was killed while supernets were trained, and what the same command made of it."""

    run: RunDirectory
    arguments: list[str]
    ended: dict[str, int]  # when the checkpoints of trials that had ended by then were written, by key
    done: Outcome


def checkpoints(run, key):
    return max(path.stat().st_mtime_ns for path in (run.supernets_dir / key / "supernet").iterdir())


def ended(run):
    with contextlib.suppress(RunError, FileNotFoundError):
        return {t.key: checkpoints(run, t.key) for t in supernet_trials(run) if t.state != "training"}
    return {}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    home = tmp_path_factory.mktemp("supernets")
    arguments = [*run_arguments(home / "r", workers=2), *OPTIONS]
    run = RunDirectory(home / "r")
    with search_process(arguments, home) as process:
        while not ended(run):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
    before = ended(run)
    with contextlib.chdir(home):
        return Resumed(RunDirectory.open(home / "r"), arguments, before, command(*arguments))


def real(test):
    return pytest.mark.ray(pytest.mark.slow(test))


@real
def test_a_killed_run_goes_on_and_trains_nothing_again_that_had_ended(resumed):
    assert resumed.done.code == 0, resumed.done.stderr
    assert resumed.ended
    assert {key: checkpoints(resumed.run, key) for key in resumed.ended} == resumed.ended
    wanted = proposals(studying(tune=TUNE), COUNT)
    assert {t.key for t in supernet_trials(resumed.run)} == {trial.key for trial in wanted}


@real
def test_what_diverges_fails_with_its_reason_and_the_others_go_on(resumed):
    states = {trial.parameters["train.lr"]: set() for trial in supernet_trials(resumed.run)}
    for trial in supernet_trials(resumed.run):
        states[trial.parameters["train.lr"]].add(trial.state)
        assert ("finite" in (trial.error or "")) == (trial.parameters["train.lr"] == 1e9), trial
    assert states[1e9] == {"failed"}
    assert "complete" in states[0.01]
    assert "training" not in states[0.01]


@real
def test_a_supernet_is_an_ordinary_run_trained_with_its_parameters(resumed):
    for trial in ranked(supernet_trials(resumed.run)):
        folder = RunDirectory.open(resumed.run.supernets_dir / trial.key)
        assert folder.config()["train"]["lr"] == trial.parameters["train.lr"]
        assert sorted(trial.scores) == [1, 3]
        widths = trial.parameters["space.embed_dim"]
        assert f"embed_dim={json.dumps(widths)}" in folder.manifest.space_settings
        said = " ".join(resumed.done.stderr.split())
        for line in course_of(folder).dead:
            assert " ".join(line.split()) in said


@real
def test_the_front_is_the_union_and_each_point_names_its_supernet(resumed):
    front = ParetoFront.from_run(resumed.run.path)
    searched = searched_runs(resumed.run)
    assert 1 <= len(searched) <= 2
    assert len({point.measurement.conditions for point in front.points}) == 1
    for point in front.points:
        own = ParetoFront.from_run(owner(resumed.run, point).path)
        same = next(p for p in own.points if p.digest == point.digest)
        assert point.value(OBJECTIVES[0].metric) == same.value(OBJECTIVES[0].metric)
    every = [p for run in searched.values() for p in ParetoFront.from_run(run.path).points]
    best = max(p.measurement.values["top1"] for p in every)
    assert best in {p.measurement.values["top1"] for p in front.points}
    assert sum(len(run.trials()) for run in searched.values()) >= 8


@real
def test_looking_at_and_exporting_from_the_parent_works(resumed, tmp_path):
    path = resumed.run.path
    status = json.loads(command("status", path, "--format=json").stdout)
    assert sum(status["supernets"].values()) == len(supernet_trials(resumed.run))
    assert status["state"] == "finished"
    for arguments in (("front", path), ("show", path, "knee")):
        assert command(*arguments, "--format=table").code == 0
    done = command("export", path, "--pick=top1", f"--to={tmp_path / 'vit'}", "--formats=timm", "--format=json")
    assert done.code == 0, done.stderr
    exported = json.loads(done.stdout)
    assert exported["digest"] == ParetoFront.from_run(path).pick("top1").digest


@real
def test_the_same_command_on_a_finished_run_does_nothing(resumed):
    before = {path: path.stat().st_mtime_ns for path in resumed.run.path.rglob("*.safetensors")}
    front = ParetoFront.from_run(resumed.run.path)
    done = command(*resumed.arguments)
    assert done.code == 0, done.stderr
    assert "nothing is left to do" in done.stderr
    assert ParetoFront.from_run(resumed.run.path) == front
    assert {path: path.stat().st_mtime_ns for path in resumed.run.path.rglob("*.safetensors")} == before


@real
def test_a_run_of_one_supernet_is_not_continued_as_one_of_several(finished):
    done = command(*finished.arguments, "--supernet-trials=2", "--workers=1")
    assert done.code == 2
    assert "holds a run of one supernet" in done.stderr


@real
def test_finalists_start_from_their_own_supernets_and_are_exported_with_their_weights(resumed, tmp_path):
    path = tmp_path / "r"
    shutil.copytree(resumed.run.path, path)
    done = command("finalists", path, "--count=6", "--epochs=1", "--workers=0")
    assert done.code == 0, done.stderr
    run, front = RunDirectory.open(path), ParetoFront.from_run(path)
    assert len({point.measurement.conditions for point in front.points}) == 1
    for point in front.points:
        own = owner(run, point)
        assert own.path != run.path
        assert (own.finalists_dir / point.details[FINALIST]["weights"]).exists()
    assert doubts_of(run) == []
    done = command("export", path, "--pick=top1", f"--to={tmp_path / 'vit'}", "--formats=timm", "--format=json")
    assert done.code == 0, done.stderr
    refused = command("finalists", owner(run, front.points[0]).path, "--count=4", "--epochs=1", "--workers=0")
    assert refused.code == 2
    assert "a supernet of another run" in refused.stderr
