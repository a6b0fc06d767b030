"""A search in a process of its own, to be killed: FOLDER LOG NUM_TRIALS."""

import sys
from pathlib import Path

from search_fakes import AnalyticEvaluator, ShuffledWorkers, digits, search

if __name__ == "__main__":
    folder, log, num_trials = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    space = digits()
    evaluator = AnalyticEvaluator(space.backbone, log, delay_s=0.002)
    search(folder, space, workers=ShuffledWorkers(evaluator, 4, seed=len(log.read_bytes())), trials=num_trials)
