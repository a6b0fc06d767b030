import pytest
import torch
from small_runs import digits
from small_spaces import tiny_space

from nas.base.errors import ConfigError, EvaluationError
from nas.evaluation.own_metrics import agreement, check_metrics, of_logits, of_network
from nas.settings.own import OwnMetric


def metric(**given):
    return OwnMetric(**{"name": "mine", "unit": "%", "direction": "maximize", **given})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "7", None, torch.ones(2)])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(EvaluationError, match="not a finite number"):
        of_network([metric(of_network=lambda _: value)], None)


@pytest.mark.parametrize("value", [7, 7.0, torch.tensor(7.0), torch.tensor([7])])
def test_a_number_is_a_number_in_every_form(value):
    assert of_network([metric(of_network=lambda _: value)], None) == {"mine": 7.0}


def test_each_function_sees_what_it_is_of():
    both = [metric(of_logits=lambda logits, labels: len(logits) + len(labels)), metric(name="b", of_network=len)]
    assert of_logits(both, torch.ones(3, 2), torch.ones(3)) == {"mine": 6.0}
    assert of_network(both, "abcd") == {"b": 4.0}


def test_functions_are_tried_on_the_whole_split_and_a_network():
    images, seen = digits().search, []
    space = tiny_space().with_num_classes(10)

    def count(logits, labels):
        seen.append((tuple(logits.shape), labels.tolist()))
        return 1

    check_metrics([metric(of_logits=count)], space, images)
    assert seen == [((len(images), 10), images.labels.tolist())]
    with pytest.raises(ConfigError, match="mine, tried on an untrained network: TypeError"):
        check_metrics([metric(of_network=len)], space, images)


def test_the_network_that_functions_are_tried_on_has_weights():
    """`torch.empty` is filled with what is no number here, as memory may be."""
    torch.use_deterministic_algorithms(True)
    try:
        finite = metric(of_network=lambda network: min(float(p.detach().abs().max()) for p in network.parameters()))
        check_metrics([finite], tiny_space().with_num_classes(10), digits().search)
    finally:
        torch.use_deterministic_algorithms(False)


def test_features_agree_up_to_size_and_shift_and_less_where_channels_are_gone():
    whole = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert agreement(3 * whole + 5, whole) == pytest.approx(100, abs=1e-3)
    assert agreement(whole - 2 * (whole - whole.mean(dim=0)), whole) == pytest.approx(-100, abs=1e-3)
    # 6 of 8 independent channels of one size are sqrt(6 / 8) of a vector, up to what chance makes of single ones
    assert agreement(whole[:, :6], whole) == pytest.approx(100 * (6 / 8) ** 0.5, abs=3)
    assert abs(agreement(whole.roll(1, dims=0), whole)) < 10


def test_a_metric_of_features_is_tried_on_those_of_a_narrow_network():
    seen = []

    def note(features, whole):
        seen.append((features.shape, whole.shape))
        return 1

    images, space = digits().search, tiny_space().with_num_classes(10)
    check_metrics([metric(of_features=note)], space, images)
    assert seen == [((len(images), min(space.embed_dim)), (len(images), max(space.embed_dim)))]
    with pytest.raises(ConfigError, match="mine, tried on random features: TypeError"):
        check_metrics([metric(of_features=len)], space, images)
