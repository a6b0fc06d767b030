"""Ray, started or found; long jobs on it."""

# fmt: off
from nas.cluster.ahead import RayAhead, Started
from nas.cluster.connection import CHECK_S, RayConnection, check_cluster, possible_workers
from nas.cluster.tasks import ATTEMPTS, Arrays, check_sendable, quarantined, reason_of, run_tasks

__all__ = [
    "ATTEMPTS", "CHECK_S", "Arrays", "RayAhead", "RayConnection", "Started", "check_cluster",
    "check_sendable", "possible_workers", "quarantined", "reason_of", "run_tasks",
]
