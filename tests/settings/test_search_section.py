import pytest

from nas.base.errors import ConfigError
from nas.base.metrics import AGREEMENT, TOP1
from nas.settings.config import RunConfig, resolve_config

RECALL = {"recall": {"unit": "%", "direction": "maximize", "of": "logits", "bound": 80.0, "worst": 10.0}}
SIZE = {"size": {"unit": "kB", "direction": "minimize", "of": "network", "best": 1.0, "bound": 5.0}}


def section(**keys):
    return resolve_config(flags={f"search.{key}": value for key, value in keys.items()}).search


def test_a_metric_of_a_program_is_an_objective_like_ours():
    found = section(own_metrics=RECALL | SIZE, objectives=["top1", "recall", "size"])
    assert found.objectives == ("top1", "recall", "size")
    assert found.metric("top1") is TOP1
    recall, size = found.metric("recall"), found.metric("size")
    assert (recall.unit, recall.direction, recall.best) == ("%", "maximize", None)
    assert (size.unit, size.direction, size.best) == ("kB", "minimize", 1.0)
    assert found.own_bounds == {"recall>=": 80.0, "size": 5.0}


def test_an_unknown_objective_is_told_from_those_there_are():
    words = "'recal' is not one of top1, balanced_top1, macs, params, latency_ms, latency_ms_2"
    with pytest.raises(ConfigError, match=words):
        section(own_metrics=RECALL, objectives=["recal"])
    with pytest.raises(ConfigError, match="'recall' is not one of"):
        section(objectives=["recall"])


def test_an_unknown_sampler_is_told_from_those_there_are():
    words = "'nsga' is not one of predictor, nsga2, nsga3, tpe, gp, evolution, random"
    with pytest.raises(ConfigError, match=words):
        section(sampler="nsga")
    assert section(sampler="python/mine").sampler == "python/mine"


def test_a_metric_twice_is_refused():
    with pytest.raises(ConfigError, match="names a metric twice"):
        section(objectives=["top1", "top1"])


def test_agreement_is_kept_as_a_metric_of_a_program_that_needs_none():
    found = section(own_metrics=RECALL, objectives=["agreement", "recall", "macs"])
    assert set(found.own_metrics) == {"recall", "agreement"}
    assert found.metric("agreement") == AGREEMENT
    config = resolve_config(flags={"search.objectives": ["agreement", "macs"]})
    assert config.own_names == []
    assert config.search.own_metrics.keys() == {"agreement"}
    assert "agreement" not in section(objectives=["top1"]).own_metrics
    assert RunConfig.model_validate(config.model_dump()) == config
