"""What every package stands on: errors, files that are never half-written, words, progress, metrics."""

# fmt: off
from nas.base.disk import DiskError, check_writable, disk_error, writing
from nas.base.errors import (
    ArchitectureError, CheckpointError, ConfigError, DataError, EvaluationError, ExportError, HubError,
    InputFileError, NasError, NoResultError, OutOfMemoryError, RunError, SearchSpaceError, TrainingError,
    one_line, problem_words,
)
from nas.base.files import (
    SCHEMA_VERSION, atomic_write_bytes, atomic_write_text, check_schema, expanded, parse_json, read_bytes,
    read_json, replacing, sync_folder, to_json_text,
)
from nas.base.memo import cached_method
from nas.base.memory import is_out_of_memory, memory_error
from nas.base.metrics import (
    AGREEMENT, AT_LEAST, BALANCED, LATENCIES, LATENCY, MACS, METRICS, PARAMS, TOP1, Direction, Metric,
    Objective, accuracy_of, by_target, is_own_metric, metric_named,
    ranked_by,
)
from nas.base.privacy import (
    STORAGE_VARIABLE, hidden_words, hide_secrets, secrets_in, shared, shared_command, shared_word,
    visible,
)
from nas.base.program import (
    DEFAULT_TRIALS, MOST_MINUTES, NAME, command_line, keys_hint, program_name, rename_program, spaces_folder,
)
from nas.base.progress import Reporter
from nas.base.scratch import remove, scratch_path, sweep, temporary_folder
from nas.base.words import duration, format_choices, plural, unit_column, unit_of, with_interval, with_spread

__all__ = [
    "AGREEMENT", "AT_LEAST", "BALANCED", "DEFAULT_TRIALS", "LATENCIES", "LATENCY", "MACS", "METRICS", "MOST_MINUTES",
    "NAME", "PARAMS", "SCHEMA_VERSION", "STORAGE_VARIABLE", "TOP1", "ArchitectureError",
    "CheckpointError", "ConfigError", "DataError", "Direction", "DiskError", "EvaluationError",
    "ExportError", "HubError", "InputFileError", "Metric", "NasError", "NoResultError", "Objective",
    "OutOfMemoryError", "Reporter", "RunError", "SearchSpaceError", "TrainingError", "accuracy_of",
    "atomic_write_bytes", "atomic_write_text", "by_target", "cached_method", "check_schema",
    "check_writable", "command_line", "disk_error", "duration", "expanded", "format_choices",
    "hidden_words", "hide_secrets", "is_out_of_memory", "is_own_metric", "keys_hint", "memory_error",
    "metric_named", "one_line", "parse_json", "plural", "problem_words", "program_name", "ranked_by", "read_bytes",
    "read_json", "remove", "rename_program", "replacing", "scratch_path", "secrets_in", "shared", "shared_command",
    "shared_word", "spaces_folder", "sweep", "sync_folder", "temporary_folder", "to_json_text",
    "unit_column", "unit_of", "visible", "with_interval", "with_spread", "writing",
]
