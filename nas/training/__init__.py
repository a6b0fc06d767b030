"""Training a supernet: which architectures a step trains, on what, with exact resume."""

# fmt: off
from nas.training.augmentation import check_policy
from nas.training.checkpoint import KEPT
from nas.training.distill import Teacher
from nas.training.distributed import TrainerSetup, forget_processes, possible_processes, train_distributed
from nas.training.health import TrainProgress
from nas.training.sampling import drawn
from nas.training.schedule import Schedule
from nas.training.step import autocast
from nas.training.trained import load_trained, trained_weights, weights_digest
from nas.training.trainer import SupernetTrainer
from nas.training.world import World

__all__ = [
    "KEPT", "Schedule", "SupernetTrainer", "Teacher", "TrainProgress", "TrainerSetup", "World",
    "autocast", "check_policy", "drawn", "forget_processes", "load_trained", "possible_processes",
    "train_distributed", "trained_weights", "weights_digest",
]
