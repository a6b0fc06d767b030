import errno
from dataclasses import replace

import pytest
from search_fakes import AnalyticEvaluator
from worker_conduct import BAD, CONDUCT, GOOD, PLAIN, QUARANTINED, SPACE, results_of, values

from nas.base.disk import DiskError
from nas.study import workers as module
from nas.study.workers import ATTEMPTS, InlineWorkers, Task


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


# --- several at once ---


class Together(AnalyticEvaluator):
    """Notes how many are measured at once."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.sizes = []

    def evaluate_many(self, candidates):
        self.sizes.append(len(candidates))
        return [self._outcome(*candidate) for candidate in candidates]

    def _outcome(self, *candidate):
        try:
            return self.evaluate(*candidate)
        except Exception as error:  # noqa: BLE001
            return error


def test_those_that_are_measured_together_have_what_each_has_alone():
    asked = [*GOOD, BAD["raise"], BAD["nan"], BAD["memory"], BAD["memory twice"]]
    evaluator = Together(SPACE.backbone, conduct=CONDUCT)
    together, alone = (
        results_of(InlineWorkers(one), asked) for one in (evaluator, AnalyticEvaluator(SPACE.backbone, conduct=CONDUCT))
    )
    assert evaluator.sizes == [len(asked) - 1]  # after one alone, which says how long one takes
    assert [result.error for result in together] == [result.error for result in alone]
    assert [values(result) for result in together] == [values(result) for result in alone]


def test_no_more_are_measured_together_than_a_ctrl_c_may_lose(monkeypatch):
    monkeypatch.setattr(module, "TOGETHER_S", 0.05)
    evaluator = Together(SPACE.backbone, delay_s=0.02)
    assert [result.error for result in results_of(InlineWorkers(evaluator), GOOD)] == [None] * len(GOOD)
    assert max(evaluator.sizes) <= 2


def test_what_was_measured_with_another_is_finished():
    workers = InlineWorkers(Together(SPACE.backbone))
    for number, architecture in enumerate(GOOD):
        workers.submit(Task(number, architecture))
    assert [workers.next_result().number, workers.next_result().number] == [0, 1]
    assert [result.number for result in workers.finished()] == list(range(2, len(GOOD)))
    assert workers.finished() == []


def test_a_full_disk_among_several_is_no_failure_of_a_candidate(tmp_path):
    class Full(Together):
        def evaluate(self, architecture, *rest, **options):
            if architecture == GOOD[3]:
                raise OSError(errno.ENOSPC, "no space", str(tmp_path))
            return super().evaluate(architecture, *rest, **options)

    with pytest.raises(DiskError):
        results_of(InlineWorkers(Full(SPACE.backbone)), GOOD)
