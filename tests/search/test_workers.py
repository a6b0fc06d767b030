from dataclasses import replace

import pytest
from search_fakes import AnalyticEvaluator
from worker_conduct import BAD, CONDUCT, GOOD, PLAIN, QUARANTINED, SPACE, results_of, values

from nas.search.workers import ATTEMPTS, InlineWorkers, Task


def test_inline_workers_measure_in_order_and_report_errors_as_results():
    workers = InlineWorkers(AnalyticEvaluator(SPACE.backbone, conduct=CONDUCT))
    results = results_of(workers, [GOOD[0], BAD["raise"], BAD["nan"]])
    assert [result.number for result in results] == [0, 1, 2]
    assert [result.error for result in results] == [None, "ValueError: cannot be done", "top1 is nan"]
    assert [result.measurement is None for result in results] == [False, True, True]


def test_where_memory_runs_out_smaller_batches_are_tried_and_then_no_more(tmp_path):
    workers = InlineWorkers(AnalyticEvaluator(SPACE.backbone, tmp_path / "log", CONDUCT))
    enough, quarantined = results_of(workers, [BAD["memory twice"], BAD["memory"]])
    assert values(enough) == values(*results_of(PLAIN, [BAD["memory twice"]]))
    assert quarantined.error == QUARANTINED
    assert len((tmp_path / "log").read_text().split()) == 2 * ATTEMPTS


def test_memory_that_runs_out_in_python_is_tried_again_too():
    class Greedy(AnalyticEvaluator):
        def evaluate(self, *args, attempt=0):
            if attempt < ATTEMPTS - 1:
                raise MemoryError
            return super().evaluate(*args)

    assert results_of(InlineWorkers(Greedy(SPACE.backbone)), GOOD[:1])[0].error is None


def test_measurement_without_top1_is_no_failure():
    class Pruned(AnalyticEvaluator):
        def evaluate(self, *args, **options):
            return replace(super().evaluate(*args, **options), top1=None)

    assert set(values(*results_of(InlineWorkers(Pruned(SPACE.backbone)), GOOD[:1]))) == {"macs", "params", "latency_ms"}


def test_ctrl_c_is_no_failure_of_a_candidate():
    workers = InlineWorkers(AnalyticEvaluator(SPACE.backbone, conduct={GOOD[0].digest: "interrupt"}))
    workers.submit(Task(0, GOOD[0]))
    with pytest.raises(KeyboardInterrupt):
        workers.next_result()
