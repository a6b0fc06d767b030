"""Supernet trials: what is proposed and told, the union, and a real run that is killed (-9) on the way."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState
from supernet_studies import proposals, studying

from nas.runs.supernets import SupernetTrial

# --- proposals, without Ray -------------------------------------------------------------------------------


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
    known = [replace(one, state="stopped", scores={1: 0.1}), two, replace(three, state="failed", error="why")]
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
