"""A search from Python, each program in a process of its own, as a user has it."""

import json

import optuna
import pytest
from api_programs import SEARCH
from small_runs import command, python

import nas
from nas.base.errors import ConfigError
from nas.runs.directory import RunDirectory


def test_a_run_says_what_call_made_it(folder):
    words = RunDirectory.open(folder / "r").manifest.command
    assert words.startswith(
        "nas.search('tiny.yaml', objectives=['top1', 'macs'], epochs=2, seed=3, trials=12, run='r', settings={"
    )


def test_a_run_is_what_the_command_line_makes(folder):
    settings = ("train.batch_size=256", "train.lr=0.01", "train.warmup_epochs=0", "evaluate.final_rounds=3")
    words = ["--workers=0", "--epochs=2", "--trials=12", "--finalists=0", "--seed=3"]
    words += [f"--set={setting}" for setting in ("search.objectives=[top1,macs]", *settings)]
    done = command("run", folder / "tiny.yaml", "--run", folder / "cli", *words)
    assert done.code == 0, done.stderr
    ours, theirs = (json.loads((folder / name / "front.json").read_text()) for name in ("r", "cli"))
    assert [(p["digest"], p["top1"]) for p in ours["points"]] == [(p["digest"], p["top1"]) for p in theirs["points"]]


@pytest.mark.slow
def test_the_same_call_extends_a_run_and_a_space_made_in_python_is_searched(folder):
    code = (
        SEARCH.replace("trials=12", "trials=16")
        + """
import dataclasses

space = nas.SearchSpace.from_yaml("tiny.yaml")
small = dataclasses.replace(space, name="small", depth=(2,))
again = nas.search(small, epochs=1, trials=4, finalists=0, objectives=["top1", "macs"], quiet=True,
                   settings={"train.batch_size": 400, "evaluate.final_rounds": 3})
print(len(run.trials), again.path, again.space == small.with_num_classes(10), "depth" in again.trials)
"""
    )
    done = python(code, folder)
    assert done.code == 0, done.stderr
    number, path, is_same, has_depth = done.stdout.split()
    assert int(number) >= 16
    assert (path, is_same, has_depth) == ("results/small-1", "True", "False")  # a fixed gene has no column


def test_what_is_wrong_is_said_at_once_with_a_hint(folder):
    code = "import nas; nas.search('tiny.yaml', objectives=['top2'], settings={'train.lrr': 1, 'train.epochs': -1})"
    done = python(code, folder)
    assert done.code == 1
    assert "3 problems" in done.stderr
    assert "hint: " in done.stderr


def sampler_of_one(seed):
    """It can have a single objective; of several it says so when it is first asked."""
    return optuna.samplers.CmaEsSampler(seed=seed)


class Deaf:
    def on_trial(self, progress):
        """It lacks the run."""


WIDTH = nas.OwnMetric(name="width", unit="channels", direction="minimize", of_network=len)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"settings": 3}, "settings: 3 is no mapping of keys and values"),
        ({"settings": ["train.lr=1"]}, "settings: ['train.lr=1'] is no mapping of keys and values"),
        ({"settings": {"train.lr": len}}, "settings: train.lr: <built-in function len> is no value of a file"),
        ({"run": 3}, "run: 3 is no path"),
        ({"config": 3.5}, "config: 3.5 is no path"),
        ({"trials": 2.5}, "trials: 2.5 is no whole number"),
        ({"workers": "2"}, "workers: '2' is no whole number"),
        ({"finalists": "x"}, "finalists: 'x' is no whole number"),
        ({"storage": 3}, "storage: 3 is no text"),
        ({"sampler": lambda: None}, "called with seed=0 it raises TypeError"),
        ({"sampler": lambda seed: seed}, "sampler: called with seed=0 it makes no sampler, but 0"),
        ({"sampler": object()}, "makes no sampler"),
        ({"sampler": sampler_of_one}, "sampler: tried on a study of top1, macs, latency_ms it raises ValueError"),
        ({"sampler": "predictor", "callbacks": [print]}, "has none of on_train, on_trial, on_front"),
        ({"callbacks": nas.Callback}, "callbacks: the class Callback is no list"),
        ({"callbacks": [nas.Callback]}, "callbacks: Callback is a class"),
        ({"callbacks": [Deaf()]}, "on_trial of Deaf takes no two arguments: too many positional arguments"),
        ({"trials": 0}, "trials: 0 is less than 1"),
        ({"finalists": 1}, "finalists: 1 leaves nothing to choose from"),
        ({"minutes": 0}, "minutes: 0 is no number above 0"),
        ({"supernet_trials": 2, "workers": 0}, "supernet"),
        ({"supernet_trials": 2, "workers": 1, "data": [(0, 0)]}, "no data, metric or target of this program"),
        ({"metrics": [WIDTH, WIDTH]}, "metrics: several are called width"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_an_argument_of_another_kind_is_refused_before_there_is_a_run(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        nas.search("digits", quiet=True, **given)
    assert words in caught.value.message
    assert not list(tmp_path.iterdir())
