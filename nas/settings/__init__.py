"""What a person asks for: documents with line numbers, metrics, targets, the configuration of a run."""

# fmt: off
from nas.settings.config import (
    DataConfig, EvaluateConfig, Precision, RunConfig, TrainConfig, config_differences, flat_config,
    keys_for, resolve_config, split_settings,
)
from nas.settings.document import Document, KeyPath, Problem, Section, check, in_order, shown, suggestion
from nas.settings.own import (
    NO_OWN, Own, OwnMetric, OwnTarget, is_own, items_of, own_metrics, own_name, own_sampler, own_targets,
    path_of, written_settings,
)
from nas.settings.paths import located, located_path, same_places
from nas.settings.retraining import NARROW, NO_BASELINE, PLAIN, RIVALS, WHOLE, check_retraining
from nas.settings.shipped import read_space_text, shipped_spaces
from nas.settings.target import OURS, PROFILE, Target, missing_package, parse_target, profile_path
from nas.settings.tune import SPACE, TRAIN, TuneConfig, baseline, is_whole
from nas.settings.yaml_file import apply_settings, dump_yaml, read_text, read_yaml, scan_yaml

__all__ = [
    "NARROW", "NO_BASELINE", "NO_OWN", "OURS", "PLAIN", "PROFILE", "RIVALS", "SPACE", "TRAIN", "WHOLE",
    "DataConfig", "Document", "EvaluateConfig", "KeyPath", "Own", "OwnMetric", "OwnTarget", "Precision",
    "Problem", "RunConfig", "Section", "Target", "TrainConfig", "TuneConfig", "apply_settings",
    "baseline", "check", "check_retraining", "config_differences", "dump_yaml", "flat_config",
    "in_order", "is_own", "is_whole", "items_of", "keys_for", "located", "located_path",
    "missing_package", "own_metrics", "own_name", "own_sampler", "own_targets", "parse_target",
    "path_of", "profile_path", "read_space_text", "read_text", "read_yaml", "resolve_config",
    "same_places", "scan_yaml", "shipped_spaces", "shown", "split_settings", "suggestion",
    "written_settings",
]
