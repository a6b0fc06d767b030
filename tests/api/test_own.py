"""What a program brings along: data set, sampler, metrics, device; each in a process of its own, as a user has it."""

import json

import pytest
from small_runs import TINY, python

QUICK = """
import json
import nas

def search(run="r", trials=6, **given):
    settings = {"train.batch_size": 256, "train.lr": 0.01, "train.warmup_epochs": 0, "evaluate.final_rounds": 3,
                "evaluate.latency_pairs": 2}
    given = {"objectives": ["top1", "macs"], "quiet": True, **given}
    return nas.search("tiny.yaml", epochs=1, trials=trials, finalists=0, run=run, settings=settings, **given)
"""

DATA = """
import numpy as np

class Greys:
    classes = ("dark", "bright")
    def __init__(self, start, count): self.start, self.count = start, count
    def __len__(self): return self.count
    def __getitem__(self, i):
        noise = np.random.default_rng(self.start + i).uniform(-0.2, 0.2, (1, 8, 8))
        return (0.3 + 0.4 * (i % 2) + noise).astype("float32"), i % 2
"""

METRICS = """
import torch

def recall_of_7(logits, labels):
    return 100 * float((logits.argmax(1)[labels == 7] == 7).float().mean())

recall = nas.OwnMetric(name="recall_7", unit="%", direction="maximize", of_logits=recall_of_7, bound=0.0)
largest = nas.OwnMetric(name="largest_weight", unit="numbers", direction="minimize",
                        of_network=lambda network: max(p.numel() for p in network.parameters()))
"""

DEVICE = """
class Board:
    name = "board"
    def timer(self, model, images):
        macs = nas.cost.macs(model.architecture, model.backbone)
        return lambda times: 1e-9 * macs * len(images)
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def printed(code, folder):
    done = python(QUICK + code, folder)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_data_set_of_ones_own_is_split_searched_resumed_and_exported(here):
    code = (
        DATA
        + """
data = {"train": Greys(0, 200), "test": Greys(1000, 60)}
run = search(data=data)
again = search(data=data)
bundle = nas.load("r", data=data).export(to="bundle", formats=["timm"])
try:
    search(data=Greys(1, 200))
except Exception as error:
    refused = str(error)
try:
    nas.load("r").evaluate("knee")
except Exception as error:
    missing = str(error) + error.hint
manifest = run._run.manifest
print(json.dumps([manifest.class_names, manifest.images.spec, len(again.front) == len(run.front), refused, missing,
                  json.load(open("bundle/metrics.json"))["test_images"]]))
"""
    )
    names, spec, is_same, refused, missing, tested = printed(code, here)
    assert names == ["dark", "bright"]
    assert spec == "python/Greys"
    assert is_same
    assert "train split: " in refused
    assert "nas.load(run, data=...)" in missing
    assert tested == 60


def test_a_sampler_of_ones_own_is_made_for_every_trial_and_proposes_the_same_again(here):
    code = """
import optuna

seeds = []
def sampler(seed):
    seeds.append(seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=2, constant_liar=True)

# In folders of their own, as runs side by side take over what was measured.
first = search(run="x/r", trials=30, sampler=sampler)
search(run="y/r", trials=27, sampler=sampler)
second = search(run="y/r", trials=30, sampler=sampler)
try:
    search(run="c", sampler=optuna.samplers.TPESampler())
except Exception as error:
    refused = error.message + error.hint
random = search(run="z/r", trials=30, sampler=optuna.samplers.RandomSampler)
print(json.dumps([list(first.trials.digest), list(second.trials.digest), len(seeds), len(set(seeds)), refused,
                  first._run.config()["search"]["sampler"], len(random.trials)]))
"""
    first, second, asked, distinct, refused, name, _ = printed(code, here)
    assert first == second
    assert asked > distinct > 0
    assert "every trial has a new one" in refused
    assert "give its class" in refused
    assert name == "python/sampler"


def test_metrics_of_ones_own_are_objectives_bounds_and_columns(here):
    code = (
        METRICS
        + """
run = search(trials=30, objectives=["top1", "recall_7", "largest_weight"], metrics=[recall, largest])
best = run.pareto.knee()
subnet = run.supernet.extract(best.architecture)
print(json.dumps([run.front.recall_7.tolist(), run.trials.largest_weight.tolist(), run.front.attrs["units"],
    max(p.numel() for p in subnet.parameters()), best.measurement.own, run._run.manifest.to_dict()["objectives"],
    run._run.manifest.constraints, nas.load("r", metrics=[recall, largest]).evaluate("knee").own,
    "recall_7" in run._repr_html_()]))
"""
    )
    recalls, sizes, units, size, own, objectives, bounds, again, is_shown = printed(code, here)
    assert all(0 <= value <= 100 for value in recalls)
    assert len(set(sizes)) > 1
    assert (units["recall_7"], units["largest_weight"]) == ("%", "numbers")
    assert own["largest_weight"] == size
    assert own == again
    assert {"name": "recall_7", "unit": "%", "direction": "maximize", "reference": 0.0} in objectives
    assert bounds == {"recall_7>=": 0.0}
    assert is_shown
    # Without the functions a run is shown, and says what it lacks where it would measure.
    without = """
run = nas.load("r")
words = [str(run.plot()), run._repr_html_()]
from nas.cli import main
codes = [main(["search", "r", "--trials=40", "--workers=0"]), main(["finalists", "r"]), main(["report", "r"])]
print()
print(json.dumps([run.front.recall_7.tolist(), codes, run._run.front() is not None, run._run.manifest.command]))
"""
    shown, codes, has_front, call = printed(without, here)
    assert shown == recalls
    assert codes == [2, 2, 0]
    assert has_front
    assert "metrics=['recall_7', 'largest_weight']" in call


def test_a_bound_of_ones_own_keeps_architectures_off_the_front(here):
    code = (
        METRICS
        + """
from dataclasses import replace
free = search(run="a", trials=20, objectives=["top1", "macs"], metrics=[replace(largest, bound=None)])
bound = sorted(free.trials.largest_weight.dropna())[5]
kept = search(run="b", trials=20, objectives=["top1", "macs"], metrics=[replace(largest, bound=bound)])
print(json.dumps([bound, free.trials.largest_weight.max(), kept.front.largest_weight.max()]))
"""
    )
    bound, most, kept = printed(code, here)
    assert kept <= bound < most


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("name='top1', unit='%', direction='maximize', of_network=len", "not a name of its own"),
        ("name='mine', unit='%', direction='maximize'", "measured by one function"),
        ("name='mine', unit='%', direction='minimize', of_logits=len", "worth nothing"),
        ("name=3, unit='%', direction='minimize', of_network=len", "not a name of its own"),
        ("name='mine', unit='%', direction='max', of_network=len", "direction 'max'"),
        ("name='mine', unit='%', direction='maximize', of_network='len'", "a str is no function"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(given, words):
    import nas
    from nas.base.errors import ConfigError

    with pytest.raises(ConfigError, match=words):
        eval(f"nas.OwnMetric({given})", {"nas": nas})  # noqa: S307


def test_a_metric_that_fails_stops_a_run_before_there_is_one(here):
    code = """
bad = nas.OwnMetric(name="bad", unit="%", direction="maximize", of_logits=lambda logits, labels: logits.nothing)
try:
    search(metrics=[bad])
except Exception as error:
    print(json.dumps([str(error), __import__("os").path.exists("r")]))
"""
    said, exists = printed(code, here)
    assert said.startswith("metric bad, tried on random logits: AttributeError")
    assert not exists


def test_latency_on_a_device_of_ones_own_is_an_objective(here):
    code = (
        DEVICE
        + """
run = search(trials=12, objectives=["top1", "latency_ms"], targets=[Board()])
print(json.dumps([run.front.latency_ms.tolist(), run.front.macs.tolist(), run.front["conditions.target"].iloc[0],
                  run._run.config()["evaluate"]["targets"]]))
"""
    )
    latencies, macs, target, targets = printed(code, here)
    assert latencies == pytest.approx([64e-6 * count for count in macs])
    assert target == "python/board"
    assert targets == ["python/board"]


def test_what_cannot_be_used_stops_a_run_before_there_is_one(here):
    code = """
import os
class Silent:
    name = "silent"
class Broken(Silent):
    def timer(self, model, images): return lambda times: None
said = []
devices = [{"targets": [Silent()]}, {"targets": [Broken()]}]
for given in [*devices, {"metrics": [len]}, {"objectives": "top1"}, {"sampler": 3}]:
    try:
        search(**given)
    except Exception as error:
        said.append([type(error).__name__, error.message, os.path.exists("r")])
try:
    nas.search(3)
except Exception as error:
    said.append([type(error).__name__, error.message, os.path.exists("results")])
print(json.dumps(said))
"""
    said = printed(code, here)
    assert [name for name, _, _ in said] == ["ConfigError"] * 6
    words = [
        "a Silent has no method `timer`",
        "None are no seconds",
        "no nas.OwnMetric",
        "'top1' is no list",
        "sampler: 3 makes no sampler",
        "space: 3 is no search space",
    ]
    assert all(text in message for text, (_, message, _) in zip(words, said, strict=True))
    assert not any(exists for _, _, exists in said)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_measure_what_is_ones_own_where_it_can_be_sent(here):
    code = (
        DATA
        + METRICS
        + DEVICE
        + """
import threading
right = nas.OwnMetric(name="right", unit="images", direction="maximize", best=100, worst=0,
                      of_logits=lambda logits, labels: int((logits.argmax(1) == labels).sum()))
given = dict(data=Greys(0, 200), metrics=[right, largest], targets=[Board()], objectives=["top1", "latency_ms"])
run = search(workers=2, trials=12, **given)
class Wired(Board):
    lock = None
    def __init__(self): self.lock = threading.Lock()
try:
    search(run="w", workers=2, **{**given, "targets": [Wired()]})
except Exception as error:
    refused = error.message + error.hint
print(json.dumps([run.trials.largest_weight.tolist(), sorted(set(run.trials.state)), refused]))
"""
    )
    sizes, states, refused = printed(code, here)
    assert "complete" in states
    assert "failed" not in states
    assert len(sizes) >= 12
    assert "cannot be sent to Ray's processes" in refused
    assert "workers=0" in refused
