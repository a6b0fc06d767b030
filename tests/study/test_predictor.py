from dataclasses import replace

import numpy as np
import pytest
from replay_evaluator import all_architectures
from replay_tables import small_table
from search_fakes import AnalyticEvaluator, digits
from small_spaces import growing, listed, stems

from nas.arch import cost
from nas.base.metrics import BALANCED, LATENCY, MACS, PARAMS, TOP1, Objective
from nas.runs.dominance import hypervolume
from nas.space.constraints import Constraints
from nas.study.predictor import (
    LOG_MACS,
    MIDDLE,
    NODES,
    WEIGHTS,
    Observation,
    _best,
    _most_promising,
    features,
    genes_of_features,
    propose,
)

TABLE = small_table()
OBJECTIVES = (Objective(TOP1, 10.0), Objective(MACS, 1.1 * float(TABLE.macs.max())))


def observe(architecture, evaluator, *, is_whole=True):
    values = evaluator.evaluate(architecture).values
    return Observation(
        architecture,
        values["top1"],
        0.0 if is_whole else 5.0,
        {"latency_ms": values["latency_ms"]},
        is_whole,
        balanced_top1=values["top1"] / 2,
    )


def observations(space, count, seed=0):
    rng, evaluator = np.random.default_rng(seed), AnalyticEvaluator(space.backbone)
    return [observe(space.sample(rng), evaluator, is_whole=i % 4 > 0) for i in range(count)]


@pytest.mark.parametrize(
    "names", [(TOP1, MACS), (TOP1, MACS, LATENCY), (TOP1, PARAMS), (MACS, LATENCY), (BALANCED, MACS)]
)
def test_a_batch_is_new_legal_and_the_same_for_the_same_seed(names):
    space = digits()
    references = {"top1": 0.0, "macs": 4e6, "latency_ms": 20.0, "params": 1e6, "balanced_top1": 0.0}
    objectives = [Objective(metric, references[metric.name]) for metric in names]
    known, pending = observations(space, 20), [space.largest(), space.smallest()]
    seen = {o.architecture.digest for o in known} | {architecture.digest for architecture in pending}

    def batch():
        rng = np.random.default_rng(3)
        return propose(space, objectives, known, pending, seen, 6, rng)

    first = batch()
    assert len({architecture.digest for architecture in first} - seen) == len(first) == 6
    assert all(architecture in space for architecture in first)
    assert first == batch()


def test_where_latency_is_bounded_what_would_be_too_slow_is_not_proposed():
    def latency_ms(architecture):
        return sum(layer.num_tokens for layer in architecture.layers) + architecture.embed_dim / 8

    free, objectives = digits(), [Objective(TOP1, 0.0)]
    known = [replace(o, latencies={"latency_ms": latency_ms(o.architecture)}) for o in observations(free, 40)]
    bound = sorted(o.latencies["latency_ms"] for o in known)[6]
    seen = {o.architecture.digest for o in known}

    def too_slow(space):
        batch = propose(space, objectives, known, [], seen, 12, np.random.default_rng(3))
        assert len(batch) == 12
        return sum(latency_ms(architecture) > bound for architecture in batch)

    assert too_slow(free) > 4
    assert too_slow(replace(free, constraints=Constraints(max_latency={"latency_ms": bound}))) <= 1


def test_a_batch_is_as_small_as_what_is_left_of_the_space():
    space = TABLE.space
    known = [
        Observation(a, 50.0 + i, 0.0, {"latency_ms": 1.0}, True)
        for i, a in enumerate([space.largest(), space.smallest()])
    ]
    every = {a.digest for a in _everything()}
    left = sorted(every)[:3]
    found = propose(space, OBJECTIVES, known, [], every - set(left), 8, np.random.default_rng(0))
    assert {architecture.digest for architecture in found} <= set(left)


def _everything():
    return all_architectures(TABLE.space)


def test_the_predictor_finds_more_than_chance_does():
    """Rounds of eight by hand, against uniform draws: the same number of measurements, three seeds."""
    space, top1 = TABLE.space, TABLE.top1()

    def measured(architecture):
        return Observation(architecture, float(top1[TABLE.row(architecture)]), 0.0, {}, is_whole=True)

    def volume(found):
        rows = [TABLE.row(o.architecture) for o in found]
        return hypervolume(np.stack([top1[rows], TABLE.macs[rows]], axis=1), OBJECTIVES)

    guided, chance = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        random = [measured(space.sample(rng)) for _ in range(48)]
        known = random[:16]
        while len(known) < 48:
            seen = {o.architecture.digest for o in known}
            known = known + [measured(a) for a in propose(space, OBJECTIVES, known, [], seen, 8, rng)]
        guided.append(volume(known))
        chance.append(volume(random))
    assert np.median(guided) > np.median(chance)


class MadeUpModel:
    """Losses of numbers; what is believed to be known leaves the others less sure."""

    def __init__(self, losses):
        self.losses_ = losses  # [nodes, n, objectives]

    def losses(self, candidates, nodes=NODES, *, believed=()):  # noqa: ARG002
        middle = self.losses_[MIDDLE]
        return (middle + (self.losses_ - middle) / (1 + len(believed)))[:, list(candidates)]


def test_the_chosen_promise_the_most_one_by_one():
    """Lazy greedy against looking at everything again each time."""
    rng = np.random.default_rng(0)
    front, middle, deviation = rng.random((4, 3)), rng.random((30, 3)), 0.1 * rng.random((30, 1))
    every = np.stack([np.maximum(middle - node * deviation * [1, 0, 0], 0) for node in NODES])
    objectives = [Objective(metric, 1.0) for metric in (MACS, PARAMS, LATENCY)]
    expected, rows, model = [], front, MadeUpModel(every)
    for _ in range(6):
        losses, base = model.losses(range(30), believed=expected), hypervolume(rows, objectives)
        gains = [
            -1.0 if i in expected else WEIGHTS @ [hypervolume(np.vstack([rows, c]), objectives) - base for c in cs]
            for i, cs in enumerate(losses.transpose(1, 0, 2))
        ]
        expected.append(int(np.argmax(gains)))
        rows = np.vstack([rows, losses[MIDDLE, expected[-1]]])
    assert _most_promising(model, front, [], range(30), 6) == expected


def test_parents_are_spread_over_the_front():
    """A crowd of old points does not keep the front's ends and middle out."""
    crowd = [(0.5 + i / 1e4, 0.5 - i / 1e4) for i in range(100)]
    losses = np.array([*crowd, (0.0, 1.0), (1.0, 0.0), (0.2, 0.8), (0.9, 0.9)])
    parents = _best(list(range(len(losses))), losses)
    assert {100, 101, 102} <= set(parents)
    assert 103 not in parents


def test_features_tell_all_architectures_apart():
    architectures = list(_everything())
    rows = features(architectures, TABLE.space)
    assert np.isfinite(rows).all()
    assert len(np.unique(rows, axis=0)) == len(architectures)
    assert len(genes_of_features(TABLE.space)) == rows.shape[1]


def test_stems_are_told_apart_where_there_are_several():
    searched = stems()
    networks = list(listed(searched))
    rows = features(networks, searched)
    assert len(np.unique(rows, axis=0)) == len(set(networks))
    assert len(genes_of_features(searched)) == rows.shape[1]
    assert rows.shape[1] == features(networks[:1], stems(stem=("patch",))).shape[1] + 2
    assert features(networks[:1], stems(stem=("patch", "conv", "overlap"))).shape[1] == rows.shape[1] + 1


@pytest.mark.parametrize("space", [digits(), stems(), growing()], ids=["digits", "stems", "widths"])
def test_the_line_of_the_surrogate_is_in_the_logarithm_of_macs(space):
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(20)]
    expected = [np.log(cost.macs(architecture, space.backbone)) for architecture in drawn]
    np.testing.assert_allclose(features(drawn, space)[:, LOG_MACS], expected)
