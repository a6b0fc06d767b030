"""Options of the commands that train alone: what they ask of the jobs."""

import json
import os

import pytest
from report_runs import made_trials, make_run, retrained, trusted
from small_runs import command

import nas.jobs


@pytest.fixture
def run(tmp_path):
    return trusted(retrained(make_run(tmp_path / "r", made_trials(20))))


@pytest.fixture
def asked(monkeypatch, run):
    """What the jobs were asked for; they answer what lies in the run's folder."""
    calls = {}
    answers = {name.partition("/")[0].removesuffix(".json"): found for name, found in run.findings().items()}

    def job(name):
        def answer(*arguments, **options):
            calls[name] = (arguments, options)
            return {"run": "r", "failed": [], **answers[name]}

        return answer

    for name in ("retrain", "trust"):
        monkeypatch.setattr(nas.jobs, name, job(name))
    return calls


def test_retrain_asks_for_what_was_typed(run, asked, tmp_path):
    done = command(
        *("retrain", run.path, "--pick=knee", "--from=inherited", "--seeds=3", "--epochs=2", "--baseline=none"),
        *(
            "--teacher=timm:x",
            "--set=train.lr=1",
            "--set=train.ends=0.5",
            "--workers=0",
            f"--to={tmp_path}",
            "--data=digits",
        ),
    )
    assert done.code == 0, done.stderr
    (path, request, _), options = asked["retrain"]
    assert (path, request.pick, request.start, request.seeds) == (run.path, "knee", "inherited", 3)
    assert (request.epochs, request.teacher, request.baselines) == (2, "timm:x", ("none",))
    assert request.settings == ("train.lr=1", "train.ends=0.5")
    assert options == {"workers": 0, "directory": tmp_path, "data": "digits"}
    assert json.loads(done.stdout)["picked"]["name"] == "knee"


def test_without_options_one_training_of_each_starts_at_random(run, asked):
    assert command("retrain", run.path, "--pick=top1").code == 0
    (_, request, _), options = asked["retrain"]
    assert request == nas.jobs.Request(pick="top1")
    assert options == {"workers": len(os.sched_getaffinity(0)), "directory": None, "data": None}


def test_trust_asks_for_what_was_typed_and_prints_a_row_an_architecture(run, asked):
    done = command("trust", run.path, "--architectures=12", "--seeds=2", "--epochs=5", "-f", "csv")
    assert done.code == 0, done.stderr
    (path, _), options = asked["trust"]
    assert path == run.path
    workers = len(os.sched_getaffinity(0))
    assert options == {"architectures": 12, "seeds": 2, "epochs": 5, "workers": workers, "data": None}
    assert len(done.stdout.splitlines()) == 13


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trust", "--architectures=3"], "--architectures 3"),
        (["trust", "--seeds=0"], "--seeds 0"),
        (["finalists", "--count=1"], "--count 1"),
        (["finalists", "--epochs=0"], "--epochs"),
        (["retrain", "--pick=knee", "--seeds=0"], "--seeds 0"),
        (["retrain", "--pick=knee", "--from=nowhere"], "nowhere"),
    ],
)
def test_misuse_starts_no_training(run, asked, arguments, said):
    done = command(arguments[0], run.path, *arguments[1:])
    assert (done.code, done.stdout, asked) == (2, "", {})
    assert said in done.stderr
