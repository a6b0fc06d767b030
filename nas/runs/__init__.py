"""A run: its folder, its trials, its fronts, as files and values."""

# fmt: off
from nas.runs.curve import hypervolume_curve, random_search
from nas.runs.directory import (
    CONFIG, MANIFEST, TRAINING_LOG, TRUST, RunDirectory, latest_unfinished, next_path, space_of_run,
)
from nas.runs.dominance import hypervolume, non_dominated
from nas.runs.front import ParetoFront
from nas.runs.manifest import Manifest, SearchBudget, SearchIdentity, SupernetTrial, trial_key
from nas.runs.point import FrontPoint, further_latencies
from nas.runs.ranking import (
    BASELINES, CONFIDENCE, LEAST_ARCHITECTURES, RESAMPLES, check_counts, mean_tokens, rank_statistics,
)
from nas.runs.results import Measured, measured, measured_designs, retrained_networks
from nas.runs.supernets import (
    OWNER, all_trials, check_ray_is_used, check_supernet_trials, front_of, joint_digest, owner, ranked,
    searched_runs, space_settings, supernet_trial, supernet_trials, train_settings, union_points,
)
from nas.runs.trial import Conditions, Measurement, Trial, TrialState

__all__ = [
    "BASELINES", "CONFIDENCE", "CONFIG", "LEAST_ARCHITECTURES", "MANIFEST", "OWNER", "RESAMPLES",
    "TRAINING_LOG", "TRUST", "Conditions", "FrontPoint", "Manifest", "Measured", "Measurement",
    "ParetoFront", "RunDirectory", "SearchBudget", "SearchIdentity", "SupernetTrial", "Trial",
    "TrialState", "all_trials", "check_counts", "check_ray_is_used", "check_supernet_trials", "front_of",
    "further_latencies", "hypervolume", "hypervolume_curve", "joint_digest", "latest_unfinished",
    "mean_tokens", "measured", "measured_designs", "next_path", "non_dominated", "owner", "random_search",
    "rank_statistics", "ranked", "retrained_networks", "searched_runs", "space_of_run", "space_settings",
    "supernet_trial", "supernet_trials", "train_settings", "trial_key", "union_points",
]
