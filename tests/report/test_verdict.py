"""One sentence on what a front is worth beside the best plain ViT of its space, with the interval from images."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from factories import plain
from report_runs import made_trials, make_run, page_space

from nas.base.metrics import BALANCED, TOP1, Metric, Objective
from nas.report.verdict import best_plain, chance_level, chance_words, shape_words, verdict_of
from nas.runs.front import ParetoFront
from nas.runs.point import FINALIST
from nas.runs.results import plain_vits, results_of
from nas.space.designs import is_plain, plain_shapes


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return results_of(make_run(tmp_path_factory.mktemp("v") / "r", made_trials(40)))


def with_points(found, *asked):
    """A run that has measured these alone: architecture, top-1, half of its interval, MACs, latency, on the front?"""
    points, model = [], found.front.points[0]
    for architecture, top1, half, macs, ms, is_on_front in asked:
        measurement = replace(
            model.measurement,
            top1=top1,
            top1_interval=None if half is None else (top1 - half, top1 + half),
            macs=float(macs),
            latency={n: replace(timed, ms=ms) for n, timed in model.measurement.latency.items()},
        )
        points.append((replace(model, architecture=architecture, measurement=measurement), is_on_front))
    front = ParetoFront(found.front.objectives, [p for p, is_on in points if is_on])
    return replace(found, front=front, others=[p for p, is_on in points if not is_on], trials={"": []})


def others_than_plain(count):
    return [t.architecture for t in made_trials(40) if not is_plain(t.architecture)][:count]


def test_the_cheapest_of_the_front_that_is_as_accurate_is_compared(found):
    plain, dear = plain_shapes(page_space())[3], plain_shapes(page_space())[5]
    low, equal, high = others_than_plain(3)
    made = with_points(
        found, (plain, 80.0, 3.0, 1000, 10.0, False), (dear, 79.0, 3.0, 2000, 12.0, False),
        (low, 70.0, 3.0, 100, 1.0, True), (equal, 80.3, 4.0, 410, 5.5, True), (high, 90.0, 3.0, 900, 9.0, True),
    )  # fmt: skip
    verdict = verdict_of(made)
    assert best_plain(made).digest == verdict["plain"] == plain.digest
    assert verdict["digest"] == equal.digest
    assert (verdict["macs_ratio"], verdict["latency_ratio"]) == (pytest.approx(0.41), pytest.approx(0.55))
    assert (verdict["difference"], verdict["margin"]) == (pytest.approx(0.3), pytest.approx(math.hypot(3, 4)))
    assert verdict["is_told_apart"] is False
    assert verdict["text"].endswith(
        "80.0 %) the front has 0.41 of its MACs and 0.55 of its latency; "
        "top-1 differs by +0.3 ± 5.0 points: not told apart"
    )


def test_a_front_below_the_plain_vit_is_said_to_be_below(found):
    plain, (own,) = plain_shapes(page_space())[3], others_than_plain(1)
    made = with_points(found, (plain, 45.0, 1.0, 1000, 10.0, False), (own, 40.9, 1.0, 500, 5.0, True))
    verdict = verdict_of(made)
    assert verdict["is_told_apart"] is True
    assert verdict["text"].startswith("the front does not reach the top-1 of the best plain ViT (d")
    assert "45.0 %): its most accurate network has 0.50" in verdict["text"]
    assert "0.50 of its MACs and 0.50 of its latency; top-1 differs by -4.1 ± 1.4 points: told apart" in verdict["text"]


def test_under_a_bound_the_best_plain_vit_within_it_is_compared(found):
    large, small, (own,) = *plain_shapes(page_space())[3:5], others_than_plain(1)
    asked = (large, 90.0, 1.0, 1000, 10.0, False), (small, 70.0, 1.0, 400, 4.0, False), (own, 80.0, 1.0, 200, 3.0, True)
    made = with_points(found, *asked)
    assert verdict_of(made)["plain"] == large.digest
    for bound, digest, words in (
        (5.0, small.digest, "at the top-1 of the best plain ViT within the bounds (d"),
        (3.5, large.digest, "the front does not reach the top-1 of the best plain ViT, which breaks the bounds, (d"),
        (20.0, large.digest, "the front does not reach the top-1 of the best plain ViT within the bounds (d"),
    ):
        verdict = verdict_of(bounded(made, bound))
        assert verdict["plain"] == digest
        assert verdict["text"].startswith(words)


def bounded(found, bound):
    """The same run, under a bound on its latency."""
    run = SimpleNamespace(front=found.run.front, path=found.run.path)
    run.manifest = found.run.manifest.model_copy(update={"constraints": {"latency_ms": bound}})
    return replace(found, run=run)


def test_a_plain_vit_that_nothing_undercuts_is_said(found):
    plain, (own,) = plain_shapes(page_space())[3], others_than_plain(1)
    made = with_points(found, (plain, 45.0, 1.0, 1000, 9.0, True), (own, 40.9, 1.0, 500, 5.0, True))
    assert verdict_of(made)["text"].startswith("no network of the front has the top-1 of the best plain ViT (d")


def test_without_intervals_nothing_is_said_of_them(found):
    plain, (own,) = plain_shapes(page_space())[3], others_than_plain(1)
    made = with_points(found, (plain, 45.0, None, 1000, 9.0, False), (own, 46.0, 1.0, 500, 5.0, True))
    verdict = verdict_of(made)
    assert (verdict["margin"], verdict["is_told_apart"]) == (None, None)
    assert verdict["text"].endswith("top-1 differs by +1.0 points")


def test_where_no_plain_vit_was_measured_alike_there_is_no_sentence(found):
    made = with_points(found, *((a, 50.0, 1.0, 1 + i, 1.0, True) for i, a in enumerate(others_than_plain(2))))
    assert verdict_of(made)["text"] is verdict_of(made)["plain"] is None
    plain = plain_shapes(page_space())[3]
    made = with_points(
        found, (plain, 45.0, 1.0, 1000, 9.0, False), (others_than_plain(1)[0], 46.0, 1.0, 500, 5.0, True)
    )
    trained = [replace(p, details={FINALIST: {}}) for p in made.front.points]
    assert verdict_of(replace(made, front=ParetoFront(found.front.objectives, trained)))["text"] is None


@pytest.mark.parametrize(
    ("largest", "accuracy", "chance", "words"),
    [
        (None, TOP1, 10.0, "chance: 10.0 % (10 classes)"),
        (0.1, TOP1, 10.0, "chance: 10.0 % (10 classes)"),
        (0.231, TOP1, 23.1, "chance: 23.1 % (always the most frequent class)"),
        (0.231, BALANCED, 10.0, "chance: 10.0 % (10 classes)"),
    ],
)
def test_chance_is_the_better_of_two_blind_answers(found, largest, accuracy, chance, words):
    manifest = found.run.manifest.model_copy(update={"largest_class": largest})
    assert chance_level(manifest, accuracy) == pytest.approx(chance)
    assert chance_words(chance, 10) == words


def test_beside_finalists_stands_the_best_plain_vit_that_was_trained_to_the_end(found, monkeypatch):
    plain, early, (own,) = *plain_shapes(page_space())[3:5], others_than_plain(1)
    made = with_points(
        found, (plain, 45.0, 1.0, 1000, 10.0, False), (early, 99.0, 1.0, 1000, 10.0, False),
        (own, 61.0, 1.0, 500, 5.0, True),
    )  # fmt: skip
    trained = [replace(p, details={FINALIST: {}}) for p in made.front.points]
    made = replace(made, front=ParetoFront(found.front.objectives, trained))
    rows = [{"digest": plain.digest, "plain": True, "trained": [50.0, 60.5]}]
    rows += [{"digest": early.digest, "plain": True, "trained": [40.0, None]}]
    rows += [{"digest": own.digest, "plain": False, "trained": [50.0, 61.0]}]
    monkeypatch.setattr(type(made.run), "front", lambda _: {"finalists": {"candidates": rows}})
    verdict = verdict_of(made)
    assert (verdict["plain"], verdict["margin"]) == (plain.digest, None)
    assert (
        "60.5 %) the front has 0.50 of its MACs and 0.50 of its latency; top-1 differs by +0.5 points"
        in verdict["text"]
    )


def test_a_plain_vit_is_told_by_its_sizes_and_a_stem_of_its_own():
    assert shape_words(plain()) == "d24 L3 h3 m2"
    assert shape_words(replace(plain(), stem="conv")) == "d24 L3 h3 m2 conv stem"


def test_of_a_front_by_a_metric_of_ones_own_nothing_is_said(found):
    nll = Objective(Metric("nll", "nats", "minimize", "nll"), 2.0)
    points = [replace(p, measurement=replace(p.measurement, own={"nll": 1.0})) for p in found.front.points]
    own = replace(found, front=ParetoFront((nll, found.front.objectives[1]), points))
    assert verdict_of(found)["text"]
    assert verdict_of(own)["text"] is None
    assert verdict_of(own)["plain"] is None
    assert plain_vits(own).gains == {}
