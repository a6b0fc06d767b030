"""Training a supernet: which architectures a step trains, on what, with exact resume."""

# fmt: off
from nas.training.checkpoint import KEPT, load_checkpoint
from nas.training.distill import Teacher
from nas.training.distributed import TrainerSetup, possible_processes, train_distributed
from nas.training.health import TrainProgress
from nas.training.sampling import drawn
from nas.training.step import autocast
from nas.training.trainer import SupernetTrainer, check_batch
from nas.training.world import World

__all__ = [
    "KEPT", "SupernetTrainer", "Teacher", "TrainProgress", "TrainerSetup", "World", "autocast",
    "check_batch", "drawn", "load_checkpoint", "possible_processes", "train_distributed",
]
