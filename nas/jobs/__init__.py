"""What a command does, from its first stage to its last."""

# fmt: off
from nas.jobs import several, stages
from nas.jobs.alone import StandAloneSetup, network_at, space_of_one, trained_network
from nas.jobs.alone_records import inherited_setup, stand_alone_setup, trained_alone
from nas.jobs.bundles.predict import predict, prediction_rows
from nas.jobs.bundles.validate import validate
from nas.jobs.callbacks import Callback, TensorBoard, own_callbacks
from nas.jobs.dry_run.forecast import check_budget_dry, forecast, plan_job
from nas.jobs.dry_run.rehearsal import WATCH_S, memory_of, size_of
from nas.jobs.export import export_pick, owning_run
from nas.jobs.last_choice.finalists import Contest, finalists
from nas.jobs.measures import CALIBRATION_ROUNDS, evaluate, evaluator_setup
from nas.jobs.proposal.propose import propose
from nas.jobs.repeats import repeat
from nas.jobs.retrain import Request, retrain
from nas.jobs.session import Budget, Session, check_budget, reopen, start
from nas.jobs.trust import inherited_accuracy, trust

__all__ = [
    "CALIBRATION_ROUNDS", "WATCH_S", "Budget", "Callback", "Contest", "Request", "Session",
    "StandAloneSetup", "TensorBoard", "check_budget", "check_budget_dry", "evaluate", "evaluator_setup",
    "export_pick", "finalists", "forecast", "inherited_accuracy", "inherited_setup", "memory_of",
    "network_at", "own_callbacks", "owning_run", "plan_job", "predict", "prediction_rows", "propose", "reopen",
    "repeat", "retrain", "several", "size_of", "space_of_one", "stages", "stand_alone_setup", "start",
    "trained_alone", "trained_network", "trust", "validate",
]
