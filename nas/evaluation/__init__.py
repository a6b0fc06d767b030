"""From an architecture to a measurement."""

from nas.evaluation.accuracy import count_correct, top1_percent, wilson_interval
from nas.evaluation.evaluator import EvaluatorSetup, SubnetEvaluator, build_evaluator, evaluator_arrays
from nas.evaluation.protocol import Evaluator, FrontRunner, RacePlan
from nas.evaluation.racing import FIRST, race_order
from nas.evaluation.replay import ReplayEvaluator, ReplayTable, all_architectures

__all__ = [
    "FIRST",
    "Evaluator",
    "EvaluatorSetup",
    "FrontRunner",
    "RacePlan",
    "ReplayEvaluator",
    "ReplayTable",
    "SubnetEvaluator",
    "all_architectures",
    "build_evaluator",
    "count_correct",
    "evaluator_arrays",
    "race_order",
    "top1_percent",
    "wilson_interval",
]
