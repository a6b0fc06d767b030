"""What there is to ask of a run, in a process of its own, as a user has it."""

import json

import pytest
from small_runs import begin, python

LOOK = """
import json, sys
import nas

run = nas.load("r")
front, html, axes = run.front, run._repr_html_(), len(run.plot().axes)
looked = "torch" in sys.modules
own = run.space.smallest()
told = run.evaluate("knee"), run.evaluate(own.to_dict())
run.export(own, to="bundle", formats=["timm"])

import timm, torch
model, images = timm.create_model("local-dir:bundle", pretrained=True).eval(), torch.randn(2, 3, 8, 8)
print(json.dumps({
    "first": repr(run), "html": html, "axes": axes, "imported torch": looked,
    "knee": [front[front.knee].top1.iloc[0], told[0].top1],
    "own": [json.load(open("bundle/metrics.json"))["top1"], told[1].top1],
    "is the supernet's": torch.equal(model(images), run.supernet.extract(own)(images)),
}))
"""


def test_a_run_is_tables_a_figure_measurements_and_networks(folder):
    done = python(LOOK, folder)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"] == "nas.load('r')"
    assert not found["imported torch"]
    assert found["axes"] >= 2
    assert "<table" in found["html"]
    assert "hypervolume" in found["html"]
    assert found["knee"][0] == found["knee"][1]  # as a trial is measured
    assert found["own"][0] == found["own"][1]
    assert found["is the supernet's"]


ALONE = """
import json
import numpy as np
import optuna
import nas

class Greys:
    classes = ("dark", "bright")
    def __len__(self): return 240
    def __getitem__(self, i):
        noise = np.random.default_rng(i).uniform(-0.2, 0.2, (1, 8, 8))
        return (0.3 + 0.4 * (i % 2) + noise).astype("float32"), i % 2

def sampler(seed): return optuna.samplers.RandomSampler(seed=seed)

settings = {"train.batch_size": 32, "train.warmup_epochs": 0, "evaluate.final_rounds": 3}
run = nas.search("tiny.yaml", data=Greys(), sampler=sampler, objectives=["top1", "macs"], epochs=1, minutes=0.01,
                 trials=26, finalists=0, run="own", quiet=True, settings=settings, tensorboard=True)
try:
    nas.load("own", data=Greys()).repeat(2)
except nas.ConfigError as error:
    refused = str(error)
for wrong in (3, None, ["plain", 3]):
    try:
        run.retrain("knee", baselines=wrong)
    except nas.ConfigError as error:
        refused += f"; {error}"
seeds = nas.load("own", data=Greys(), sampler=sampler).repeat(2)
trust = run.trust(architectures=4, seeds=1, epochs=1)
alone = run.retrain("knee", epochs=1, settings={"train.lr": 0.01}, baselines="none", to="alone")
both = nas.compare(run, "r")
trust_json = json.load(open("own/trust.json"))
print(json.dumps({
    "trials": len(run.trials), "planned": run._run.manifest.plan.minutes,
    "tensorboard": (run.path / "tensorboard" / "train").is_dir(),
    "refused": refused, "seeds": list(seeds.index), "median": seeds.attrs["hypervolume_median"],
    "found by": list(run.front.found_by),
    "trust": [list(trust.inherited_top1), [row["inherited_top1"] for row in trust_json["architectures"]]],
    "tau": [trust.attrs["kendall_tau"], trust_json["kendall_tau"]],
    "alone": [list(alone.digest), alone.attrs["picked"]["digest"], alone.attrs["settings"]["train"]["lr"]],
    "both": list(both.index), "different": [row["key"] for row in both.attrs["differences"]],
}))
"""


def test_commands_behind_a_search_are_methods_and_know_what_is_ones_own(folder):
    done = python(ALONE, folder)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] >= 26
    assert found["planned"] == 0.01
    assert found["tensorboard"]
    assert "python/sampler is an object of a Python program" in found["refused"]
    assert found["refused"].count("a list of names is expected") == 3
    assert found["seeds"] == [0, 1]
    assert 0 < found["median"] <= 1
    assert set(found["found by"]) <= {1, 2}
    assert found["trust"][0] == found["trust"][1]
    assert len(found["trust"][0]) == 4
    assert found["tau"][0] == found["tau"][1]
    assert found["alone"][0] == [found["alone"][1]]
    assert found["alone"][2] == 0.01
    assert found["both"] == ["own", "r"]
    assert "search.sampler" in found["different"]


def test_a_run_that_has_not_ended_is_not_repeated(tmp_path, monkeypatch):
    import nas

    monkeypatch.chdir(tmp_path)
    run = begin(tmp_path).run
    with pytest.raises(nas.RunError, match="is not finished"):
        nas.load(run.path).repeat(2)


def test_what_is_no_run_is_said(tmp_path):
    import nas
    from nas.base.errors import ConfigError, RunError

    with pytest.raises(RunError, match="does not exist"):
        nas.load(tmp_path / "r")
    with pytest.raises(ConfigError, match="path: 3 is no path"):
        nas.load(3)
