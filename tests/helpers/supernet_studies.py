"""Studies of supernets, without Ray."""

from nas.settings.tune import TuneConfig
from nas.study.supernet_trials import Plan, SupernetStudy


def plan(tune=None, **changes):
    values = {"epochs": 9, "count": 20, "seed": 0, "workers": 1, "address": None, "num_gpus": 0}
    return Plan(tune=TuneConfig.model_validate(tune or {}), **{**values, **changes})


def studying(known=(), first=None, **changes):
    return SupernetStudy(plan(**changes), known, first)


def proposals(study, count):
    return [study.ask() for _ in range(count)]
