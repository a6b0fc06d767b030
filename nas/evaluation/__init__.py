"""From an architecture to a measurement."""

from nas.evaluation.accuracy import count_correct, top1_percent, wilson_interval
from nas.evaluation.evaluator import EvaluatorSetup, SubnetEvaluator, build_evaluator, evaluator_arrays
from nas.evaluation.protocol import Course, Evaluator, Rival
from nas.evaluation.racing import FIRST, course_order
from nas.evaluation.replay import ReplayEvaluator, ReplayTable, all_architectures

__all__ = [
    "FIRST",
    "Course",
    "Evaluator",
    "EvaluatorSetup",
    "ReplayEvaluator",
    "ReplayTable",
    "Rival",
    "SubnetEvaluator",
    "all_architectures",
    "build_evaluator",
    "count_correct",
    "course_order",
    "evaluator_arrays",
    "top1_percent",
    "wilson_interval",
]
