"""A search in a process of its own, over a journal or a database: FOLDER LOG NUM_TRIALS STORAGE."""

import sys
import time
from pathlib import Path
from typing import Any

from search_fakes import OBJECTIVES, AnalyticEvaluator, ShuffledWorkers, make_study, new_run, tiny_space

from nas.arch.architecture import Architecture
from nas.base.errors import NasError
from nas.runs.directory import RunDirectory
from nas.runs.trial import Measurement, Trial
from nas.space.space import SearchSpace
from nas.study.loop import Search

HELD_AFTER = 5


def small_space() -> SearchSpace:
    """64 architectures with few genes: a database takes 10 ms and more for each of a proposal's."""
    return tiny_space(num_heads=tuple(range(1, 9)))


def search_in(
    storage: str, folder: Path, trials: int, evaluator: AnalyticEvaluator, seed: int = 0
) -> tuple[Trial, ...]:
    """Search as `search_fakes.search` does, with the study in a database or, for `journal`, in the run."""
    run = RunDirectory.open(folder) if folder.exists() else new_run(folder)
    where = run.journal_path if storage == "journal" else storage
    study = make_study(small_space(), where, name=run.name)
    workers = ShuffledWorkers(evaluator, 4, seed)
    try:
        return Search(small_space(), OBJECTIVES, study, workers, run).run(trials=trials)
    finally:
        study.close()


class _Held(AnalyticEvaluator):
    """After `HELD_AFTER` evaluations, waits until the file `hold` beside the log is gone."""

    def evaluate(self, architecture: Architecture, *arguments: Any, **options: Any) -> Measurement:
        assert self._log is not None
        while len(self._log.read_text().split()) >= HELD_AFTER and self._log.with_name("hold").exists():
            time.sleep(0.01)
        return super().evaluate(architecture, *arguments, **options)


if __name__ == "__main__":
    folder, log, num_trials, storage = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    evaluator = _Held(small_space().backbone, log, delay_s=0.01)
    try:
        search_in(storage, folder, num_trials, evaluator, seed=len(log.read_bytes()))
    except NasError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(2)
