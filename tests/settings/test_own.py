import pytest

from nas.base.errors import ConfigError
from nas.settings.config import resolve_config
from nas.settings.own import Own, OwnMetric, is_own, items_of, own_metrics, own_name, own_targets, path_of

RECALL = OwnMetric(name="recall", unit="%", direction="maximize", of_logits=lambda *_: 1.0)


class Board:
    name = "my board!"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Board(), "python/myboard"),
        (Board, "python/myboard"),
        (len, "python/len"),
        (lambda seed: seed, "python/lambda"),
        ([], "python/list"),
    ],
)
def test_an_object_has_a_name_in_a_configuration(value, name):
    assert own_name(value) == name
    assert is_own(name)


@pytest.mark.parametrize("text", ["python/", "python", "torch/cifar10:x", "digits", None, 3, "python/a b"])
def test_other_values_name_no_object(text):
    assert not is_own(text)


def test_every_object_that_a_configuration_names_is_required():
    flags = {
        "data.spec": "python/Mine",
        "search.sampler": "python/mine",
        "search.own_metrics": {"recall": RECALL.to_dict()},
        "evaluate.targets": ["python/board:batch=2"],
    }
    names = resolve_config(flags=flags).own_names
    whole = {"data": [], "sampler": len, "metrics": (RECALL,), "targets": {"python/board": Board()}}
    Own(**whole).require(names)
    for left_out in whole:
        some = {word: value for word, value in whole.items() if word != left_out}
        with pytest.raises(ConfigError, match="object of a Python program") as caught:
            Own(**some).require(names)
        assert f"{left_out}=" in caught.value.hint
    Own().require(resolve_config().own_names)


class Timed(Board):
    timer = print


class Nameless(Timed):
    name = None


def test_metrics_and_devices_are_what_they_are_asked_to_be():
    board = Timed()
    assert own_metrics([RECALL]) == (RECALL,)
    assert own_targets(["torch-cpu", board]) == {"python/myboard": board}
    assert items_of("objectives", iter(["top1"]), "...") == ("top1",)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: own_metrics([lambda *_: 1]), "metrics: a function is no nas.OwnMetric"),
        (lambda: own_metrics(RECALL), "metrics: an OwnMetric is no list"),
        (lambda: own_metrics("top1"), "metrics: 'top1' is no list"),
        (lambda: own_targets([Board()]), "targets: a Board has no method `timer`"),
        (lambda: own_targets([Nameless()]), "targets: a Nameless has no text `name`"),
        (lambda: own_targets([3]), "targets: 3 has no text `name` and no method `timer`"),
        (lambda: own_targets(Timed()), "targets: a Timed is no list"),
        (lambda: path_of("run", 3), "run: 3 is no path"),
        (lambda: path_of("path", None), "path: None is no path"),
        (lambda: items_of("objectives", "top1", '"top1", "macs"'), "objectives: 'top1' is no list"),
    ],
)
def test_what_a_program_gives_that_cannot_be_is_said(call, words):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.message == words
    assert caught.value.hint
