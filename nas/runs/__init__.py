"""A run: its folder, its trials, its fronts, as files and values."""

# fmt: off
from nas.runs.curve import random_search
from nas.runs.directory import (
    CONFIG, MANIFEST, TRAINING_LOG, TRUST, RunDirectory, as_begun, config_of_run, latest_unfinished,
    next_path, space_of_run,
)
from nas.runs.dominance import hypervolume, non_dominated
from nas.runs.doubts import doubts_of
from nas.runs.front import PICKS, ParetoFront
from nas.runs.manifest import (
    REFERENCE_MARGIN, FinalistsProgress, ImagePlace, Manifest, RunPlan, SearchBudget, SearchIdentity,
    SupernetTrial, WeightSource, objectives_by, trial_key, typed_in, versions_here,
)
from nas.runs.point import FINALIST, FOUND_BY, FrontPoint, interval_key, points_of
from nas.runs.ranking import (
    BASELINES, CONFIDENCE, LEAST_ARCHITECTURES, RESAMPLES, architecture_row, check_counts,
    kendall_tau, rank_statistics,
)
from nas.runs.results import (
    BALANCED_SPLITS, SPLITS, PlainViTs, RunResults, design_points, network_row, picked, plain_vits,
    results_of, retrained_networks, retrained_rows, shared_beginning,
)
from nas.runs.supernets import (
    OWNER, all_trials, check_ray_is_used, check_supernet_trials, front_of, group_settings, joint_digest,
    owner, ranked, reference_elsewhere, searched_runs, space_settings, supernet_trial, supernet_trials,
    trials_by_supernet, union_points,
)
from nas.runs.training_log import course_of, log_rows
from nas.runs.trial import Conditions, Measurement, Timed, Trial, TrialState, trial_row, whole

__all__ = [
    "BALANCED_SPLITS", "BASELINES", "CONFIDENCE", "CONFIG", "FINALIST", "FOUND_BY", "LEAST_ARCHITECTURES",
    "MANIFEST", "OWNER", "PICKS", "REFERENCE_MARGIN", "RESAMPLES", "SPLITS", "TRAINING_LOG", "TRUST",
    "Conditions", "FinalistsProgress", "FrontPoint", "ImagePlace", "Manifest", "Measurement",
    "ParetoFront", "PlainViTs", "RunDirectory", "RunPlan", "RunResults", "SearchBudget", "SearchIdentity",
    "SupernetTrial", "Timed", "Trial", "TrialState", "WeightSource", "all_trials", "architecture_row",
    "as_begun", "check_counts", "check_ray_is_used", "check_supernet_trials", "config_of_run",
    "course_of", "design_points", "doubts_of", "front_of", "group_settings", "hypervolume",
    "interval_key", "joint_digest", "kendall_tau", "latest_unfinished", "log_rows", "network_row", "next_path",
    "non_dominated", "objectives_by", "owner", "picked", "plain_vits", "points_of", "random_search",
    "rank_statistics", "ranked", "reference_elsewhere", "results_of", "retrained_networks",
    "retrained_rows",
    "searched_runs", "shared_beginning", "space_of_run", "space_settings", "supernet_trial",
    "supernet_trials", "trial_key",
    "trial_row", "trials_by_supernet", "typed_in", "union_points", "versions_here", "whole",
]
