import numpy as np
import pytest

from nas.evaluation.racing import Rival, Z, leads, looks, race, unpack

IMAGES = 512
COSTS = {"macs": 2.0, "latency_ms": 2.0}


def rival(answers, number=7, **costs):
    return Rival(number, COSTS | costs, np.packbits(answers).tobytes())


def raced(answers, rivals):
    """What race returns, and the parts that it asked for."""
    parts = []

    def classify(start, stop):
        parts.append((start, stop))
        return answers[start:stop]

    return *race(classify, len(answers), COSTS, rivals), parts


def test_an_architecture_without_cheaper_rivals_sees_every_image_at_once():
    answers = np.zeros(IMAGES, dtype=bool)
    better = np.ones(IMAGES, dtype=bool)
    dearer = [rival(better, macs=2.1), rival(better, latency_ms=3.0)]
    correct, beaten_by, parts = raced(answers, dearer)
    assert (len(correct), beaten_by, parts) == (IMAGES, None, [(0, IMAGES)])


def test_a_hopeless_architecture_is_stopped_at_the_first_look():
    answers, better = np.zeros(IMAGES, dtype=bool), np.ones(IMAGES, dtype=bool)
    correct, beaten_by, parts = raced(answers, [rival(answers, 3), rival(better, 5)])
    assert beaten_by == 5
    assert parts == [(0, looks(IMAGES)[0])]
    assert len(correct) == looks(IMAGES)[0]


def test_images_are_seen_once_and_in_order():
    rng = np.random.default_rng(0)
    answers = rng.random(IMAGES) < 0.6
    correct, beaten_by, parts = raced(answers, [rival(rng.random(IMAGES) < 0.6)])
    assert beaten_by is None
    assert correct.tolist() == answers.tolist()
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert [stop for _, stop in parts] == [*looks(IMAGES), IMAGES]


def test_equal_answers_are_no_lead_and_a_whole_split_leaves_no_doubt():
    answers = np.random.default_rng(0).random(IMAGES) < 0.5
    assert leads(answers[None], answers, IMAGES).tolist() == [0.0]
    one_better = answers.copy()
    one_better[np.flatnonzero(~answers)[0]] = True
    assert leads(one_better[None], answers, IMAGES)[0] > 1e6


def test_the_lead_is_the_paired_difference_over_its_error_without_replacement():
    theirs = np.array([[1, 1, 1, 1, 0, 1, 0, 1]], dtype=bool)
    ours = np.array([1, 0, 0, 1, 0, 1, 1, 1], dtype=bool)
    difference = np.array([0, 1, 1, 0, 0, 0, -1, 0])
    error = np.sqrt(difference.var() / 8 * (32 - 8) / 31)
    assert leads(theirs, ours, 32)[0] == pytest.approx((1 / 8) / error)


def test_the_truly_better_is_hardly_ever_beaten():
    """Pairs of which the candidate is at least as good on the whole split, close ones above all."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(1000):
        difficulty = rng.random(IMAGES)
        ours, theirs = (difficulty + rng.normal(0, 0.2, IMAGES) < 0.6 for _ in range(2))
        if theirs.sum() > ours.sum():
            ours, theirs = theirs, ours
        wrong += raced(ours, [rival(theirs)])[1] is not None
    assert wrong <= 10


def test_looks_grow_and_come_after_whole_batches():
    for count in (10, 100, 287, 2000, 10_000):
        stops = looks(count)
        assert stops == sorted(set(stops))
        assert all(stop % 32 == 0 and stop < count for stop in stops)
    assert Z > 1.5


def test_bits_come_back_as_they_were():
    answers = np.random.default_rng(0).random(13) < 0.5
    assert unpack(np.packbits(answers).tobytes(), 13).tolist() == answers.tolist()
