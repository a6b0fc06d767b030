"""A run's folder: the only place that knows its file names. Writes are atomic; one writer at a time."""

import contextlib
import difflib
import errno
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from filelock import FileLock, Timeout

from nas.base import (
    SCHEMA_VERSION,
    ConfigError,
    RunError,
    atomic_write_text,
    check_schema,
    command_line,
    parse_json,
    read_bytes,
    read_json,
    replacing,
    sweep,
    sync_folder,
    to_json_text,
    writing,
)
from nas.runs.manifest import Manifest, ManifestChanges
from nas.runs.trial import TRIAL_COLUMNS, Trial, TrialState, trial_row
from nas.settings import RunConfig, dump_yaml, read_text, read_yaml, resolve_config
from nas.space import SearchSpace, parse_space

MANIFEST, SPACE, CONFIG, LOCK = "manifest.json", "space.yaml", "config.yaml", "lock"
TRIALS, TRIALS_CSV, FRONT, FRONT_CSV = "trials.jsonl", "trials.csv", "front.json", "front.csv"
TRUST = "trust.json"
TRAINING_LOG = "log.csv"

MOST_NAMED = 5  # runs in a hint
LOCK_PATIENCE_S = 0.5  # `is_locked` holds the lock for microseconds; a writer must not be refused for that


class RunDirectory:
    """One run's folder; `create` makes it, `open` finds it.

    Attributes:
        journal_path: Optuna's journal.
        supernet_dir: Folder of the supernet's checkpoints.
        training_log: The course of its training, CSV.
        supernets_dir: Folder of the runs of supernet trials.
        searches_dir: Folder of repeated searches of the supernet (`search --seeds`), each a run.
        trust_dir: Folder of the architectures that `trust` trained alone.
        retrain_dir: Folder of what `retrain` found; the trainings are below it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal_path = path / "journal.log"
        self.front_csv = path / FRONT_CSV
        self.log_path = path / "run.log"
        self.report_path = path / "report.html"
        self.supernet_dir = path / "supernet"
        self.training_log = self.supernet_dir / TRAINING_LOG
        self.supernets_dir = path / "supernets"
        self.searches_dir = path / "searches"
        self.trust_dir = path / "trust"
        self.retrain_dir = path / "retrain"
        self.finalists_dir = path / "finalists"
        self.tensorboard_dir = path / "tensorboard"

    @classmethod
    def create(
        cls, path: str | Path, *, manifest: Manifest, space_text: str, config: Mapping[str, Any]
    ) -> "RunDirectory":
        """Make the folder of a new run, which must not exist or be empty. It appears complete or not at all.

        `space_text` is the search-space file as the user wrote it, `config` the resolved configuration.

        Raises:
            RunError: Something is there already, or a value is not JSON.
            DiskError: It cannot be written there.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: a new run needs an empty folder", hint="choose another --run DIR")
        manifest_text = to_json_text(manifest.to_dict())
        config_text = dump_yaml(json.loads(to_json_text(config)))
        with replacing(path) as scratch:
            scratch.mkdir(parents=True)
            for name, text in ((SPACE, space_text), (CONFIG, config_text), (MANIFEST, manifest_text)):
                atomic_write_text(scratch / name, text)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """Find a run; raises a RunError where there is no folder, no run, or one of a newer version."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            there = "is not a run: it has no manifest.json" if path.exists() else "does not exist"
            raise RunError(f"{path} {there}", hint=_runs_near(path))
        run = cls(path)
        _ = run.manifest
        return run

    @property
    def name(self) -> str:
        """The folder's own name, such as `digits-1`."""
        return self.path.resolve().name

    @property
    def manifest(self) -> Manifest:
        """What the run is and how far it is. Read from disk each time; raises a RunError when damaged."""
        return Manifest.from_dict(self._read_json(MANIFEST), self.path / MANIFEST)

    def update_manifest(self, **changes: Unpack[ManifestChanges]) -> None:
        """Write the manifest with other values; raises a RunError where it is damaged or cannot hold them."""
        manifest = self.manifest.updated(changes, self.path / MANIFEST)
        atomic_write_text(self.path / MANIFEST, to_json_text(manifest.to_dict()))

    def space_text(self) -> str:
        """The search-space file as the user wrote it."""
        return read_text(self.path / SPACE)

    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return read_yaml(self.path / CONFIG).data

    @contextlib.contextmanager
    def lock(self, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
        """Be the only writer until the process ends, however it ends.

        Args:
            patience_s: Seconds to wait for another that is writing; -1: until it ends.

        Raises:
            RunError: Another is writing; names it.
        """
        path = self.path / LOCK
        lock = FileLock(path, timeout=patience_s, fallback_to_soft=False)  # not kept by forked workers
        with writing(path):
            try:
                lock.acquire()
            except Timeout:
                raise RunError(
                    f"{self.path} is being written by process {path.read_text().strip() or 'unknown'}",
                    hint="wait until it ends, stop it, or choose another --run DIR",
                ) from None
        try:
            sweep(self.path.rglob(".*.tmp"))  # first: it may be what makes room
            with writing(path):
                path.write_text(f"{os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a process, this one included, is writing into the run now."""
        try:
            with (self.path / LOCK).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError) as error:
            return isinstance(error, BlockingIOError)
        return False

    def append_trial(self, trial: Trial) -> None:
        """Add one line and wait until it is on disk. A later line of the same number replaces an earlier one.

        A running trial is not waited for: a sync takes 1 to 14 ms by load, where small networks are measured in
        12, and after a power cut the trial is measured again whether its line is there or not.

        Call it inside `lock`: the torn line of a writer that was killed is cut off first.

        Raises:
            RunError: A value is not finite.
            DiskError: The disk is full; the line is then taken back.
        """  # noqa: DOC501 - OSError is caught here
        try:
            text = json.dumps(trial.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise RunError(f"trial {trial.number} cannot be recorded: {error}") from error
        line, path = text.encode(), self.path / TRIALS
        with writing(path, len(line)), path.open("a+b", buffering=0) as file:
            end = _end_of_whole_lines(file.fileno())
            file.truncate(end)
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if not trial.is_running:
                    os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if end == 0:
            sync_folder(self.path)  # a new file's name must survive a power cut too

    def trials(self) -> list[Trial]:
        """Every trial in its latest state, by number; a torn last line is left out, any other is a RunError."""
        try:
            lines = read_bytes(self.path / TRIALS).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            text = f"{self.path / TRIALS} cannot be read: {error.strerror or error}"
            raise RunError(text, hint="restore it from a copy") from error
        records: dict[int, dict[str, Any]] = {}
        for i, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn or nothing
            if b"\0" in line:
                continue  # a power cut came before the line was on disk, so its trial was in flight
            try:
                record = parse_json(line)
                number, ended = _number_of(record), record["state"] != TrialState.RUNNING
                if ended or records.get(number, record)["state"] == TrialState.RUNNING:  # whatever the order of lines
                    records[number] = record
            except (ValueError, KeyError, TypeError) as error:
                text = f"{self.path / TRIALS}, line {i}: not a trial record: {error}"
                raise RunError(text, hint="restore the file, or delete this line and resume") from error
        return [Trial.from_dict(records[number]) for number in sorted(records)]

    def write_trials_csv(self) -> Path:
        """Write `trials.csv`, one row a trial; results/README.md explains the columns. Returns its path."""
        import pandas as pd

        rows = [trial_row(trial) for trial in self.trials()]
        columns = [*TRIAL_COLUMNS, *sorted({name for row in rows for name in row}.difference(TRIAL_COLUMNS))]
        table = pd.DataFrame(rows, columns=columns, dtype=object)  # or 3 beside a gap is 3.0
        atomic_write_text(self.path / TRIALS_CSV, table.to_csv(index=False))
        return self.path / TRIALS_CSV

    def write_front(self, values: Mapping[str, Any]) -> None:
        """Write `front.json`, the run's answer (`ParetoFront.to_dict`)."""
        atomic_write_text(self.path / FRONT, to_json_text(values))

    def front(self) -> dict[str, Any] | None:
        """What `write_front` wrote; None while there is no final front. Raises a RunError when damaged."""
        return dict(self._read_json(FRONT)) if (self.path / FRONT).exists() else None

    def remove_front(self) -> None:
        """Withdraw the answer: a finished search is being extended, and trials so far speak again."""
        for name in (FRONT, FRONT_CSV):
            (self.path / name).unlink(missing_ok=True)

    def write_front_csv(self, text: str) -> None:
        """Write `front.csv` (`front_table.front_csv`)."""
        atomic_write_text(self.front_csv, text)

    def log(self, line: str) -> None:
        """Append one line to `run.log`, with the time in UTC."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with writing(self.log_path), self.log_path.open("a") as file:
            file.write(f"{stamp} {' '.join(line.splitlines())}\n")

    def write_trust(self, values: Mapping[str, Any]) -> None:
        """Write `trust.json`: how well the supernet ranks (`nas.trust`)."""
        atomic_write_text(self.path / TRUST, to_json_text({"schema_version": SCHEMA_VERSION, **values}))

    def write_retrain(self, digest: str, values: Mapping[str, Any]) -> None:
        """Write `retrain/<digest>.json`: how good an architecture is when it is trained alone."""
        with writing(self.retrain_dir):
            self.retrain_dir.mkdir(exist_ok=True)
        text = to_json_text({"schema_version": SCHEMA_VERSION, **values})
        atomic_write_text(self.retrain_dir / f"{digest}.json", text)

    def findings(self) -> dict[str, Any]:
        """What `trust` and `retrain` found, by file name; raises a RunError where a file is damaged."""
        paths = [*self.path.glob(TRUST), *sorted(self.retrain_dir.glob("*.json"))]
        return {name: self._read_json(name) for name in (str(path.relative_to(self.path)) for path in paths)}

    def profile_path(self, latency: str) -> Path:
        """Copy of the profile that answers for a latency, by the metric's name."""
        return self.path / "profiles" / f"{latency}.json"

    def figure_path(self, name: str = "front") -> Path:
        """PNG file of a figure."""
        return self.path / "figures" / f"{name}.png"

    def _read_json(self, name: str) -> Any:
        try:
            values = read_json(self.path / name)
        except (OSError, ValueError) as error:
            text = f"{self.path / name} cannot be read: {error}"
            raise RunError(text, hint="restore it from a copy") from error
        check_schema(values, self.path / name)
        return values


def next_path(results_root: str | Path, space_name: str) -> Path:
    """Folder for a new run of a space: `<root>/<space>-<n>`, n one above the highest there is."""
    numbers = [n for n, _ in _numbered(Path(results_root), space_name)]
    return Path(results_root) / f"{space_name}-{max(numbers, default=0) + 1}"


def latest_unfinished(results_root: str | Path, space_name: str) -> Path | None:
    """The highest-numbered run of a space that has not finished, if any; unreadable runs are passed over."""
    for _, path in sorted(_numbered(Path(results_root), space_name), reverse=True):
        with contextlib.suppress(RunError):
            if RunDirectory.open(path).manifest.stage != "finished":
                return path
    return None


def _numbered(root: Path, space_name: str) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(space_name) + r"-(\d+)")
    matches = [(pattern.fullmatch(p.name), p) for p in root.iterdir()] if root.is_dir() else []
    return [(int(match[1]), p) for match, p in matches if match]


def _number_of(record: dict[str, Any]) -> int:
    number = record["number"]
    if type(number) is not int or number < 0:
        raise ValueError(f"its number is {number!r}")
    return number


def _end_of_whole_lines(descriptor: int) -> int:
    """Length of the file without a last line that misses its newline."""
    end = os.fstat(descriptor).st_size
    if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
        return end
    return os.pread(descriptor, end, 0).rfind(b"\n") + 1


def space_of_run(run: RunDirectory) -> SearchSpace:
    """A run's search space with its settings and the classes of its data; a SearchSpaceError where it was damaged."""
    manifest = run.manifest
    space = parse_space(run.space_text(), str(run.path / SPACE), manifest.space_settings)
    return space.with_num_classes(len(manifest.class_names))


def config_of_run(run: RunDirectory) -> RunConfig:
    """A run's configuration, later keys at their defaults; a ConfigError where it is damaged or has a removed one."""
    return resolve_config(run.path / CONFIG)


def as_begun(config: RunConfig, run: RunDirectory) -> RunConfig:
    """A configuration with the epochs that the plan of a run gave it, where it names none."""
    if run.manifest.plan is None or config.train.epochs is not None:
        return config
    with contextlib.suppress(ConfigError):  # of a damaged file it is told where runs are compared
        return config.with_epochs(config_of_run(run).train.epochs)
    return config


def _runs_near(path: Path) -> str:
    """A hint for who asked for a run where there is none: those in that folder, one of a similar name, those beside."""

    def runs_in(folder: Path, below: str = "[!.]*") -> list[str]:
        return sorted(str(found.parent) for found in folder.glob(f"{below}/{MANIFEST}"))

    if inside := runs_in(path):
        return f"runs in it: {_some(inside)}"
    beside, far = runs_in(path.parent), runs_in(path.parent.parent, "[!.]*/[!.]*")
    elsewhere = [name for name in (*beside, *far, *runs_in(path.parent, "[!.]*/[!.]*")) if name != str(path)]
    same = [name for name in elsewhere if Path(name).name == path.name]
    close = same[:1] or difflib.get_close_matches(str(path), elsewhere, n=1, cutoff=0.8)
    words = [f'did you mean "{close[0]}"?'] if close else []
    words += [f"runs beside it: {_some(beside)}"] if len(beside) > 1 or not close else []
    return " ".join(words) if close or beside else f"start one: {command_line('run')}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)
