"""Supernet trials: what is proposed and told, the union, and a real run that is killed (-9) on the way."""

import contextlib
import json
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from factories import OBJECTIVES, distinct_architectures, measurement
from optuna.trial import TrialState
from small_runs import (
    Outcome,
    command,
    run_arguments,
    search_process,
    tiny_space,
)

from nas.base.errors import RunError
from nas.jobs.session import Budget
from nas.jobs.several import _shares
from nas.jobs.several_trial import probe_set
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.point import FrontPoint
from nas.runs.supernets import (
    OWNER,
    SupernetTrial,
    owner,
    ranked,
    searched_runs,
    supernet_trials,
    union_points,
)
from nas.search.supernet_trials import Plan, SupernetStudy
from nas.settings.tune import TuneConfig

COUNT = 4
TUNE = {
    "parameters": {"train.lr": [0.01, 1e30], "space.embed_dim": [[16, 24], [16]]},
    "grace": 1,
    "probes": 4,
}
OPTIONS = (
    "--epochs=3",
    f"--supernet-trials={COUNT}",
    "--trials=8",
    "--set=evaluate.max_images=100",
    *(f"--set=tune.{key}={json.dumps(value)}" for key, value in TUNE.items() if key != "parameters"),
    *(f"--set=tune.parameters.{key}={json.dumps(value)}" for key, value in TUNE["parameters"].items()),
)


# --- proposals, without Ray -------------------------------------------------------------------------------


def plan(tune=None, **changes):
    values = {"epochs": 9, "count": 20, "seed": 0, "workers": 1, "address": None, "num_gpus": 0}
    return Plan(tune=TuneConfig.model_validate(tune or {}), **{**values, **changes})


def studying(known=(), first=None, **changes):
    return SupernetStudy(plan(**changes), known, first)


def proposals(study, count):
    return [study.ask() for _ in range(count)]


def told(study):
    return [trial.state for trial in study._study.trials]


def test_a_proposal_depends_on_the_seed_and_its_number():
    all_at_once = proposals(studying(), 6)
    assert proposals(studying(), 6) == all_at_once
    assert proposals(studying(seed=1), 6) != all_at_once
    known = [replace(trial, state="complete", scores={9: 0.5}) for trial in all_at_once[:4]]
    assert proposals(studying(known), 2) == all_at_once[4:]


def test_what_was_being_trained_comes_first_as_it_stood_and_what_has_ended_never_again():
    one, two, three = proposals(studying(), 3)
    two = replace(two, scores={1: 0.2})
    known = [
        replace(one, state="stopped", scores={1: 0.1}),
        two,
        replace(three, state="failed", error="why"),
    ]
    study = studying(known)
    assert proposals(study, 2) == [two, proposals(studying(), 4)[3]]
    assert told(study)[:2] == [TrialState.PRUNED, TrialState.FAIL]


def test_the_configuration_as_it_is_comes_first_of_all():
    first = {"train.lr": 1e-3, "train.weight_decay": 0.05, "train.num_random": 2, "train.drop_path": 0.1}
    assert studying(first=first).ask() == SupernetTrial(number=0, parameters=first)
    known = [SupernetTrial(number=0, parameters=first, state="failed")]
    assert studying(known, first=first).ask().parameters != first


def test_no_more_trials_are_proposed_than_asked_for():
    study = studying(count=3)
    assert [trial and trial.number for trial in proposals(study, 4)] == [0, 1, 2, None]


def test_optuna_is_told_how_trials_really_ended():
    study = studying()
    one, two, three, four = proposals(study, 4)
    assert study.judge(0, replace(one, scores={1: 0.1})).state == "training"
    complete = replace(one, state="complete", scores={1: 0.1, 9: 0.4})
    assert study.judge(0, complete) == complete
    assert study.judge(1, replace(two, scores={1: 0.05})).state == "stopped"
    failed = replace(three, state="failed", error="not finite")
    assert study.judge(2, failed) == failed
    assert study.judge(3, replace(four, scores={1: 0.2})).state == "training"
    assert told(study) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert study._study.trials[0].value == 0.4


@pytest.mark.parametrize("seed", range(5))
def test_trials_are_stopped_where_rays_scheduler_would(seed):
    """Scores arrive in any order, and some trials are of an earlier process."""
    tune = pytest.importorskip("ray.tune.schedulers")
    asha = tune.ASHAScheduler("epoch", "score", "max", max_t=9, grace_period=1, reduction_factor=3)
    rng = np.random.default_rng(seed)
    known = [
        replace(trial, state="complete", scores=dict(zip((1, 3, 9), rng.random(3), strict=True)))
        for trial in proposals(studying(), 4)
    ]

    def says(trial, epoch):
        stand_in = SimpleNamespace(trial_id=trial.key)
        result = {"epoch": epoch, "score": trial.scores[epoch]}
        return asha.on_trial_result(None, stand_in, result)

    for trial in known:
        asha.on_trial_add(None, SimpleNamespace(trial_id=trial.key))
        for epoch in trial.scores:
            says(trial, epoch)
    study = studying(known)
    running = proposals(study, 16)
    for trial in running:
        asha.on_trial_add(None, SimpleNamespace(trial_id=trial.key))
    stopped = 0
    while running:
        trial = running.pop(int(rng.integers(len(running))))
        epoch = 3 if 1 in trial.scores else 1
        trial = study.judge(trial.number, replace(trial, scores={**trial.scores, epoch: rng.random()}))
        assert trial.state == {"STOP": "stopped", "CONTINUE": "training"}[says(trial, epoch)]
        stopped += trial.state == "stopped"
        if trial.state == "training" and epoch == 1:
            running.append(trial)
    assert 3 < stopped <= 16


# --- scores and shares ------------------------------------------------------------------------------------


def test_probes_are_the_same_in_every_trial_and_span_the_range_of_macs():
    space = tiny_space()
    probes = probe_set(space, 6, 0)
    assert probes == probe_set(tiny_space(), 6, 0)
    assert probes[0] == space.smallest()
    assert probes[-1] == space.largest()
    assert len(probes) == 6
    assert all(probe in space for probe in probes)


def test_the_trials_of_a_search_are_shared_out_whole_and_the_best_supernet_has_no_fewer():
    shares = [share.trials for share in _shares(Budget(trials=8, workers=2), 3)]
    assert sum(shares) == 8
    assert shares == sorted(shares, reverse=True)
    assert [share.minutes for share in _shares(Budget(trials=None, minutes=3.0, workers=2), 2)] == [1.5, 1.5]


# --- the union --------------------------------------------------------------------------------------------


def measured(rng, supernet, architectures, **changes):
    """Top-1 depends on the weights, MACs on the architecture alone."""
    return [
        FrontPoint(
            a,
            measurement(
                float(rng.integers(50, 60)), int(a.digest[0], 16) + 1, 1.0, supernet=supernet, **changes
            ),
        )
        for a in architectures
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_union_is_what_no_point_of_any_supernet_dominates(seed):
    rng = np.random.default_rng(seed)
    architectures = distinct_architectures(12, seed)
    fronts = {
        "supernets/a": measured(rng, "aaaaaaaaaaaa", architectures[:8]),
        "supernets/b": measured(rng, "bbbbbbbbbbbb", architectures[4:]),
    }
    union = ParetoFront.from_points(union_points(fronts), OBJECTIVES)
    rows = {(p.digest, folder): p.measurement.values for folder, points in fronts.items() for p in points}

    def beaten(values):
        return any(
            other["top1"] >= values["top1"]
            and other["macs"] <= values["macs"]
            and (other["top1"], other["macs"]) != (values["top1"], values["macs"])
            for other in rows.values()
        )

    for point in union.points:
        named = rows[point.digest, point.details[OWNER]]
        assert named == point.measurement.values
        assert not beaten(named)
    missing = {digest for digest, _ in rows} - {point.digest for point in union.points}
    for digest in missing:
        assert all(beaten(values) for (d, _), values in rows.items() if d == digest)


def test_points_under_other_conditions_never_meet_in_a_union():
    rng = np.random.default_rng(0)
    one, two = distinct_architectures(2)
    fronts = {"a": measured(rng, "a" * 12, [one]), "b": measured(rng, "b" * 12, [two], precision="bf16")}
    with pytest.raises(RunError, match="precision"):
        ParetoFront.from_points(union_points(fronts), OBJECTIVES)


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
    return pytest.mark.ray(pytest.mark.slow(pytest.mark.timeout(600)(test)))


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
        assert ("finite" in (trial.error or "")) == (trial.parameters["train.lr"] == 1e30), trial
    assert states[1e30] == {"failed"}
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
    done = command(
        "export", path, "--pick=top1", f"--to={tmp_path / 'vit'}", "--formats=timm", "--format=json"
    )
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
