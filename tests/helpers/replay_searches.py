"""Searches over a replay table."""

from replay_evaluator import ReplayEvaluator
from replay_tables import small_table
from search_fakes import new_run

from nas.base.metrics import MACS, TOP1, Objective
from nas.runs.directory import RunDirectory
from nas.study.loop import Search
from nas.study.study import ArchitectureStudy
from nas.study.workers import InlineWorkers

TABLE = small_table(num_images=1600)
OBJECTIVES = (Objective(TOP1, 0.0), Objective(MACS, 1.1 * float(TABLE.macs.max())))


def search(folder, *, trials, racing=True, sampler="random", workers=None, known=None, seed=0):
    run = RunDirectory.open(folder) if folder.exists() else new_run(folder)
    study = ArchitectureStudy(TABLE.space, OBJECTIVES, sampler, 6, seed, run.journal_path)
    workers = workers or InlineWorkers(ReplayEvaluator(TABLE))
    found = Search(TABLE.space, OBJECTIVES, study, workers, run, racing=racing, known=known).run(trials=trials)
    study.close()
    return found
