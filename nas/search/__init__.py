"""What to propose next, who measures it, what is written down."""

# fmt: off
from nas.search import evolution, predictor
from nas.search.actors import AHEAD, RayWorkers
from nas.search.loop import ReusedMeasurement, Search
from nas.search.reuse import known_measurements
from nas.search.standing import Progress, VisibleFront
from nas.search.study import WINDOW, ArchitectureStudy, check_storage, window_of
from nas.search.supernet_trials import Plan, run_trials
from nas.search.workers import InlineWorkers, Result, Task, Workers

__all__ = [
    "AHEAD", "WINDOW", "ArchitectureStudy", "InlineWorkers", "Plan", "Progress", "RayWorkers", "Result",
    "ReusedMeasurement", "Search", "Task", "VisibleFront", "Workers", "check_storage", "evolution",
    "known_measurements", "predictor", "run_trials", "window_of",
]
