"""Training a supernet: which architectures a step trains, on what, with exact resume."""

# fmt: off
from nas.training.augmentation import check_policy
from nas.training.checkpoint import KEPT
from nas.training.distill import Teacher
from nas.training.distributed import TrainerSetup, forget_processes, possible_processes, train_distributed
from nas.training.guest import Guest
from nas.training.health import TrainProgress
from nas.training.operators.calibration import (
    CALIBRATION_IMAGES, Calibration, LayerCalibration, calibrate, first_batches, redundancy_rows,
    start_operators,
)
from nas.training.operators.cuts import fit_cuts, fit_depths
from nas.training.operators.first_values import FIRST_IMAGES, fit_operators
from nas.training.operators.head import fit_head
from nas.training.sampling import drawn
from nas.training.schedule import Schedule, learning_rate
from nas.training.step import autocast
from nas.training.trained import load_trained, trained_weights, weights_digest
from nas.training.trainer import SupernetTrainer
from nas.training.world import World

__all__ = [
    "CALIBRATION_IMAGES", "FIRST_IMAGES", "KEPT", "Calibration", "Guest", "LayerCalibration", "Schedule",
    "SupernetTrainer", "Teacher", "TrainProgress", "TrainerSetup", "World", "autocast", "calibrate",
    "check_policy", "drawn", "first_batches", "fit_cuts", "fit_depths", "fit_head", "fit_operators",
    "forget_processes", "learning_rate", "load_trained", "possible_processes", "redundancy_rows",
    "start_operators", "train_distributed", "trained_weights", "weights_digest",
]
