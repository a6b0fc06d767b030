import numpy as np
import pytest

from nas.evaluation.protocol import FrontRunner, RacePlan
from nas.evaluation.racing import ALIGNMENT, leads, looks, race, race_order, unpack

IMAGES = 1024
COSTS = {"macs": 2.0, "latency_ms": 2.0}


def runner(answers, number=7, **costs):
    return FrontRunner(number, COSTS | costs, np.packbits(answers).tobytes())


def crowd(rng, count, quality=0.6):
    """Architectures that answer alike: an image's difficulty decides, and luck."""
    difficulty = rng.random(IMAGES)
    return [difficulty + rng.normal(0, 0.1, IMAGES) < quality for _ in range(count)]


def plan(runners, crowd_answers):
    order, doubt = race_order([np.packbits(answers).tobytes() for answers in crowd_answers], IMAGES)
    return RacePlan(tuple(runners), order, doubt)


def raced(answers, over):
    """What race returns, and the images that it asked for."""
    asked = []

    def classify(numbers):
        asked.append(numbers.tolist())
        return answers[numbers]

    return *race(classify, len(answers), COSTS, over), asked


def test_without_cheaper_rivals_every_image_is_seen_at_once_and_in_order():
    answers, better = np.zeros(IMAGES, dtype=bool), np.ones(IMAGES, dtype=bool)
    dearer = [runner(better, macs=2.1), runner(better, latency_ms=3.0)]
    for over in (None, plan([], [answers]), plan(dearer, crowd(np.random.default_rng(0), 9))):
        correct, verdict, asked = raced(answers, over)
        assert (len(correct), verdict, asked) == (IMAGES, None, [list(range(IMAGES))])


def test_a_hopeless_architecture_is_stopped_at_the_first_look_by_the_best_rival():
    answers, better = np.zeros(IMAGES, dtype=bool), np.ones(IMAGES, dtype=bool)
    over = plan([runner(answers, 3), runner(better, 5)], crowd(np.random.default_rng(0), 16))
    correct, verdict, asked = raced(answers, over)
    assert verdict.beaten_by == 5
    assert asked == [over.order[: looks(IMAGES)[0]].tolist()]
    assert len(correct) == looks(IMAGES)[0]


def test_a_survivor_has_the_answers_it_would_have_without_a_race():
    rng = np.random.default_rng(0)
    *others, answers = crowd(rng, 18)
    correct, verdict, asked = raced(answers, plan([runner(others[0])], others[1:]))
    assert verdict is None
    assert correct.tolist() == answers.tolist()
    assert sorted(number for part in asked for number in part) == list(range(IMAGES))


def test_disputed_images_come_first():
    answers = [np.array([1, 1, 0, 1], dtype=bool), np.array([1, 0, 0, 0], dtype=bool)]
    order, doubt = race_order([np.packbits(a).tobytes() for a in answers], 4)
    assert (set(order[:2]), set(order[2:])) == ({1, 3}, {0, 2})
    assert doubt.tolist() == pytest.approx([2 * 0.25, 2 * 0.25, 2 * 5 / 36, 2 * 5 / 36])


def test_the_spread_is_what_the_images_left_may_add_corrected_by_what_was_seen():
    theirs = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], dtype=bool)
    ours = np.array([0, 1, 0, 0], dtype=bool)
    doubt = np.array([0.5, 0.5, 0.4, 0.4, 0.3, 0.2], dtype=np.float32)
    lead, spread = leads(theirs, ours, doubt)
    assert lead.tolist() == [2, 0]
    assert spread == pytest.approx(np.sqrt([0.5 * 2 / 1.8, 0.5 * 2 / 1.8]))


def test_the_truly_better_is_hardly_ever_beaten_and_the_interval_holds_the_truth():
    """Pairs of close quality: who is at least as good on the whole split must not lose."""
    rng = np.random.default_rng(1)
    wrong, lost, held = 0, 0, 0
    for _ in range(300):
        quality = rng.normal(0.6, 0.03, 18)
        difficulty = rng.random(IMAGES)
        answers = [difficulty + rng.normal(0, 0.1, IMAGES) < q for q in quality]
        ours, theirs, *others = answers
        verdict = raced(ours, plan([runner(theirs)], others))[1]
        if verdict is not None:
            lost += 1
            wrong += ours.sum() >= theirs.sum()
            low, high = verdict.top1_interval
            held += low <= 100 * ours.mean() <= high
    assert wrong <= 3
    assert lost > 75
    assert held > 0.8 * lost


def test_looks_grow_and_come_after_whole_batches():
    for count in (10, 100, 287, 2000, 10_000):
        stops = looks(count)
        assert stops == sorted(set(stops))
        assert all(stop % ALIGNMENT == 0 and stop < count for stop in stops)


def test_bits_come_back_as_they_were():
    answers = np.random.default_rng(0).random(13) < 0.5
    assert unpack(np.packbits(answers).tobytes(), 13).tolist() == answers.tolist()
