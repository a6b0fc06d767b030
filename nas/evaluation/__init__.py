"""From an architecture to a measurement."""

# fmt: off
from nas.evaluation.accuracy import (
    balanced_interval, balanced_percent, count_correct, paired_loss, top1_percent, wilson_interval,
    with_answers,
)
from nas.evaluation.evaluator import (
    EvaluatorSetup, SubnetEvaluator, build_evaluator, check_latency_bounds, evaluator_arrays,
)
from nas.evaluation.own_metrics import AGREES, agreement, check_metrics, of_network
from nas.evaluation.protocol import Evaluator, FrontRunner, RacePlan
from nas.evaluation.racing import FIRST, race, race_order, unpack

__all__ = [
    "AGREES", "FIRST", "Evaluator", "EvaluatorSetup", "FrontRunner", "RacePlan", "SubnetEvaluator",
    "agreement", "balanced_interval", "balanced_percent", "build_evaluator", "check_latency_bounds",
    "check_metrics", "count_correct", "evaluator_arrays", "of_network", "paired_loss", "race",
    "race_order", "top1_percent", "unpack", "wilson_interval", "with_answers",
]
