import pytest

from nas.base.errors import ConfigError
from nas.settings.config import resolve_config
from nas.settings.own import Own, OwnMetric, is_own, own_name

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
