"""What a command does, from its first stage to its last."""

# fmt: off
from nas.jobs import several, stages
from nas.jobs.alone import space_of_one
from nas.jobs.callbacks import TensorBoard
from nas.jobs.dry_run.forecast import check_budget_dry, forecast
from nas.jobs.dry_run.rehearsal import WATCH_S, memory_of, size_of
from nas.jobs.export import export_pick
from nas.jobs.finalists import finalists
from nas.jobs.retrain import Request, retrain
from nas.jobs.session import Budget, Session, check_budget, reopen, start
from nas.jobs.stages import CALIBRATION_ROUNDS, evaluator_setup
from nas.jobs.trust import inherited_accuracy, trust

__all__ = [
    "CALIBRATION_ROUNDS", "WATCH_S", "Budget", "Request", "Session", "TensorBoard", "check_budget",
    "check_budget_dry", "evaluator_setup", "export_pick", "finalists", "forecast", "inherited_accuracy",
    "memory_of", "reopen", "retrain", "several", "size_of", "space_of_one", "stages", "start", "trust",
]
