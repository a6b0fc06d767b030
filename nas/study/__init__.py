"""What to propose next, who measures it, what is written down."""

# fmt: off
from nas.study import evolution, predictor
from nas.study.actors import AHEAD, RayWorkers, early_actor
from nas.study.loop import ReusedMeasurement, Search
from nas.study.reuse import known_measurements
from nas.study.samplers import check_own_sampler
from nas.study.standing import Progress, VisibleFront
from nas.study.study import WINDOW, ArchitectureStudy, check_storage, window_of
from nas.study.supernet_trials import Plan, run_trials
from nas.study.workers import InlineWorkers, Result, Task, Workers

__all__ = [
    "AHEAD", "WINDOW", "ArchitectureStudy", "InlineWorkers", "Plan", "Progress", "RayWorkers", "Result",
    "ReusedMeasurement", "Search", "Task", "VisibleFront", "Workers", "check_own_sampler",
    "check_storage", "early_actor", "evolution", "known_measurements", "predictor", "run_trials", "window_of",
]
