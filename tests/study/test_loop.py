import json
import time
from dataclasses import replace

import factories
import optuna
import pytest
import search_fakes
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_fakes import AnalyticEvaluator, ShuffledWorkers, digits, new_run, outline, search, tiny_space

from nas.arch import cost
from nas.base.errors import ConfigError, RunError
from nas.base.metrics import TOP1
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.trial import Timed, TrialState
from nas.space.space import SearchSpace
from nas.study.loop import Search
from nas.study.workers import InlineWorkers


def states(trials):
    return [trial.state.value for trial in trials]


def paid(log):
    return log.read_text().split()


def test_a_search_records_every_trial_by_number(tmp_path):
    space, log = digits(), tmp_path / "log"
    trials = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log), trials=25)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert states(trials).count("complete") == 25
    assert len(set(paid(log))) == len(paid(log)) == 25
    assert list(trials) == RunDirectory.open(tmp_path / "run").trials()
    assert all(trial.architecture in space for trial in trials)
    assert all(trial.started <= trial.finished for trial in trials)


class Witness(AnalyticEvaluator):
    """Looks up what is on disk while it measures."""

    def __init__(self, space, run):
        super().__init__(space.backbone)
        self._space, self._run = space, run
        self.seen = []

    def evaluate(self, architecture, plan=None, *, attempt=0):
        storage = JournalStorage(JournalFileBackend(str(self._run / "journal.log")))
        trials = optuna.load_study(study_name="architectures", storage=storage).trials
        running = [self._space.decode(t.params) for t in trials if t.state is optuna.trial.TrialState.RUNNING]
        told = sum(trial.state.is_finished() for trial in trials)
        self.seen.append((architecture in running, len(running), told == len(self.seen)))
        return super().evaluate(architecture, plan, attempt=attempt)


def test_a_proposal_and_all_earlier_results_are_on_disk_before_it_is_measured(tmp_path):
    space = digits()
    evaluator = Witness(space, tmp_path / "run")
    search(tmp_path / "run", space, evaluator, sampler="random", trials=6)
    assert evaluator.seen == [(True, 1, True)] * 6


def test_progress_agrees_with_the_trials(tmp_path):
    space = digits()
    bad = {space.smallest().digest: "raise"}
    seen = []
    trials = search(
        tmp_path / "run", space, AnalyticEvaluator(space.backbone, conduct=bad), trials=20, on_progress=seen.append
    )
    last = seen[-1]
    assert (last.complete, last.failed, last.total) == (19, 1, 20)
    assert last.repeated == len(trials) - 20
    front = ParetoFront.from_trials(trials, search_fakes.OBJECTIVES)
    assert last.hypervolume == pytest.approx(front.hypervolume(), rel=1e-12)
    assert last.front_size == len(front.points)
    assert last.accuracy is TOP1
    assert last.best_accuracy == max(point.measurement.values["top1"] for point in front.points)
    assert last.eta_s == 0
    assert [p.eta_s is None for p in seen[:6]] == [True] * 5 + [False]
    assert seen[5].eta_s > 0
    assert [p.hypervolume for p in seen] == sorted(p.hypervolume for p in seen)


@pytest.mark.parametrize("sampler", ["predictor", "nsga2", "nsga3", "tpe", "evolution", "random"])
def test_the_order_of_completion_and_the_number_of_workers_change_nothing(tmp_path, sampler):
    space = digits()
    inline = search(tmp_path / "inline", space, trials=40, sampler=sampler)
    for slots, seed in ((2, 0), (8, 1), (8, 2), (64, 3)):
        workers = ShuffledWorkers(AnalyticEvaluator(space.backbone), slots, seed)
        shuffled = search(tmp_path / f"{slots}-{seed}", space, workers=workers, trials=40, sampler=sampler)
        assert outline(shuffled) == outline(inline)
        assert workers.most_in_flight == min(slots, 8)


@pytest.mark.parametrize(
    ("conduct", "reason"),
    [
        ("nan", "top1 is nan"),
        ("raise", "ValueError: cannot be done"),
        ("refuse", "no memory for it"),
        ("incomplete", "not measured: macs, latency_ms"),
    ],
)
def test_a_candidate_that_cannot_be_measured_fails_and_the_search_goes_on(tmp_path, conduct, reason):
    space = digits()
    evaluator = AnalyticEvaluator(space.backbone, conduct={space.smallest().digest: conduct})
    trials = search(tmp_path / "run", space, evaluator, trials=5)
    assert states(trials) == ["complete", "failed", "complete", "complete", "complete"]
    assert (trials[1].error, trials[1].measurement) == (reason, None)


def test_a_space_is_measured_once_through_and_then_the_search_ends(tmp_path):
    space, log = tiny_space(), tmp_path / "log"
    evaluator = AnalyticEvaluator(space.backbone, log)
    run = new_run(tmp_path / "run")
    study = search_fakes.make_study(space, run.journal_path)
    loop = Search(space, search_fakes.OBJECTIVES, study, InlineWorkers(evaluator), run)
    trials = loop.run(trials=50)
    study.close()
    assert loop.outcome == "space exhausted"
    assert len(set(paid(log))) == len(paid(log)) == space.size() == 9
    assert states(trials).count("complete") == 9


def test_a_search_ends_when_constraints_leave_nothing_unseen(tmp_path):
    free = tiny_space()
    bound = sorted(cost.macs(free.sample(search_fakes.np.random.default_rng(i)), free.backbone) for i in range(99))[40]
    space = tiny_space(max_macs=bound)
    trials = search(tmp_path / "run", space, trials=50)
    measured = {trial.architecture.digest for trial in trials if trial.state is TrialState.COMPLETE}
    assert 1 < len(measured) < free.size()
    assert len(trials) >= len(measured) + 20  # it was patient


def test_a_repeat_is_answered_from_the_first_trial_and_not_counted(tmp_path):
    space, log = tiny_space(), tmp_path / "log"
    trials = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log), trials=8)
    repeats = [trial for trial in trials if trial.state is TrialState.REPEATED]
    assert repeats
    for trial in repeats:
        first = trials[trial.repeat_of]
        assert first.number < trial.number
        assert first.state is TrialState.COMPLETE
        assert (first.architecture, first.measurement) == (trial.architecture, trial.measurement)
    assert len(paid(log)) == 8


def test_a_repeat_of_a_trial_in_flight_waits_for_it(tmp_path):
    space, log = tiny_space(), tmp_path / "log"
    inline = search(tmp_path / "inline", space, trials=9)
    workers = ShuffledWorkers(AnalyticEvaluator(space.backbone, log), slots=8, seed=1)
    trials = search(tmp_path / "run", space, workers=workers, trials=9)
    assert outline(trials) == outline(inline)
    assert len(paid(log)) == 9


def test_what_failed_before_fails_again_without_being_paid_or_counted(tmp_path):
    space, log = tiny_space(), tmp_path / "log"
    bad = space.largest().digest
    trials = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log, {bad: "refuse"}), trials=9)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    assert failed[0].number == 0
    assert {trial.error for trial in failed[1:]} == {"failed before as trial 0: no memory for it"}
    assert all(trial.architecture.digest == bad for trial in failed)
    assert paid(log).count(bad) == 1
    assert len(paid(log)) == 9


def test_a_finished_search_extended_equals_one_that_was_longer_from_the_start(tmp_path):
    space, log = digits(), tmp_path / "log"
    evaluator = AnalyticEvaluator(space.backbone, log)
    search(tmp_path / "run", space, evaluator, trials=17)
    search(tmp_path / "run", space, evaluator, trials=17)
    assert len(paid(log)) == 17
    extended = search(tmp_path / "run", space, evaluator, trials=40)
    assert len(paid(log)) == 40
    assert outline(extended) == outline(search(tmp_path / "straight", space, trials=40))


def test_minutes_stop_the_proposals_and_the_search_can_go_on(tmp_path):
    space = digits()
    assert search(tmp_path / "run", space, minutes=0) == ()
    slow = AnalyticEvaluator(space.backbone, delay_s=0.02)
    seen = []
    first = search(
        tmp_path / "run", space, workers=ShuffledWorkers(slow, 4, 0), minutes=0.3 / 60, on_progress=seen.append
    )
    assert 4 <= len(first) < 40
    assert 0 <= seen[0].eta_s <= 0.3
    assert seen[0].total is None
    trials = search(tmp_path / "run", space, trials=40)
    assert outline(trials) == outline(search(tmp_path / "straight", space, trials=40))


def test_ctrl_c_keeps_what_is_finished_and_the_search_resumes_as_if_nothing_happened(tmp_path):
    space = digits()
    straight = search(tmp_path / "straight", space, trials=30)
    conduct = {straight[12].architecture.digest: "interrupt"}
    workers = InlineWorkers(AnalyticEvaluator(space.backbone, conduct=conduct))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", space, workers=workers, trials=30)
    *ended, running = RunDirectory.open(tmp_path / "run").trials()
    assert [trial.number for trial in ended] == list(range(12))
    assert (running.is_running, running.architecture) == (True, straight[12].architecture)
    log = tmp_path / "log"
    resumed = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log), trials=30)
    assert outline(resumed) == outline(straight)
    assert len(paid(log)) == 18


def test_ctrl_c_records_results_that_had_arrived_and_closes_the_workers(tmp_path):
    space = digits()
    workers = ShuffledWorkers(AnalyticEvaluator(space.backbone), 4, 0)

    def interrupt(progress):
        if progress.complete == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", space, workers=workers, trials=30, on_progress=interrupt)
    assert sum(not trial.is_running for trial in RunDirectory.open(tmp_path / "run").trials()) == 6
    assert workers.is_closed


def test_a_trial_whose_record_was_removed_is_measured_again(tmp_path):
    space, log = digits(), tmp_path / "log"
    before = search(tmp_path / "run", space, trials=12)
    path = tmp_path / "run" / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    gone = before[4].architecture.digest
    path.write_text("".join(line for line in lines if json.loads(line)["number"] != 4))
    after = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log), trials=12)
    assert paid(log) == [gone]
    assert outline(after) == outline(before)


def test_a_lost_journal_is_proposed_anew_and_nothing_is_paid_again(tmp_path):
    space, log = digits(), tmp_path / "log"
    search(tmp_path / "run", space, trials=20)
    (tmp_path / "run" / "journal.log").unlink()
    trials = search(tmp_path / "run", space, AnalyticEvaluator(space.backbone, log), trials=25)
    assert len(paid(log)) == 5
    assert outline(trials) == outline(search(tmp_path / "straight", space, trials=25))


class Watched(ShuffledWorkers):
    """Notes which trials are recorded as running whenever a result is asked for."""

    def __init__(self, run, *arguments):
        super().__init__(*arguments)
        self.run, self.seen = run, []

    def next_result(self):
        running = {trial.number: trial.architecture for trial in self.run.trials() if trial.is_running}
        self.seen.append((running, {task.number: task.architecture for task in self._queue}))
        return super().next_result()


def test_what_is_in_flight_is_recorded_as_running_and_nothing_else_is(tmp_path):
    space, run = digits(), new_run(tmp_path / "run")
    workers = Watched(run, AnalyticEvaluator(space.backbone), 4, 0)
    began = time.time()
    trials = search(run.path, space, workers=workers, trials=20)
    assert all(running == in_flight for running, in_flight in workers.seen)
    assert max(len(running) for running, _ in workers.seen) == 4
    assert not any(trial.is_running for trial in trials)
    assert all(began <= trial.started <= trial.finished <= time.time() for trial in run.trials())


def test_running_records_of_a_killed_process_disturb_nothing(tmp_path):
    """Also those whose proposal the study has lost, or whose architecture is another."""
    space = digits()
    straight = search(tmp_path / "straight", space, trials=30)
    search(tmp_path / "run", space, trials=10)
    run = RunDirectory.open(tmp_path / "run")
    for number in range(10, 40):
        lost = factories.trial(number, straight[3].architecture, state=TrialState.RUNNING, measurement=None)
        run.append_trial(replace(lost, finished=None))
    assert outline(search(run.path, space, trials=30)) == outline(straight)


def test_trials_of_another_search_are_refused(tmp_path):
    search(tmp_path / "a", digits(), trials=30)
    search(tmp_path / "b", digits(), trials=30, sampler="random")
    (tmp_path / "a" / "trials.jsonl").write_bytes((tmp_path / "b" / "trials.jsonl").read_bytes())
    with pytest.raises(RunError, match=r"trial \d+ is recorded with architecture \w+, but the study proposed"):
        search(tmp_path / "a", digits(), trials=31)


def test_a_search_without_limit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs a limit"):
        search(tmp_path / "run", tiny_space())


def test_what_breaks_the_bound_of_a_further_target_is_not_on_the_front(tmp_path):
    class TwoTargets(AnalyticEvaluator):
        """The second is slow where the first is fast."""

        def evaluate(self, architecture, plan=None, *, attempt=0):
            measurement = super().evaluate(architecture, plan, attempt=attempt)
            (first,) = measurement.latency.values()
            both = {"latency_ms": first, "latency_ms_2": Timed(ms=10 / first.ms)}
            return replace(measurement, latency=both)

    def sizes(**constraints):
        space, seen = tiny_space(**constraints), []
        workers = InlineWorkers(TwoTargets(space.backbone))
        trials = search(tmp_path / f"run{len(constraints)}", space, trials=9, workers=workers, on_progress=seen.append)
        return seen[-1].front_size, [trial.measurement.values["latency_ms_2"] for trial in trials]

    whole, latencies = sizes()
    bound = sorted(latencies)[4]
    bounded, _ = sizes(max_latency_ms_2=bound)
    assert 0 < bounded < whole


def test_a_latency_bound_holds_for_the_front_that_is_reported(tmp_path):
    seen = []
    space: SearchSpace = tiny_space(max_latency_ms=2.6)
    trials = search(tmp_path / "run", space, trials=9, on_progress=seen.append)
    within = [t for t in trials if t.measurement is not None and t.measurement.values["latency_ms"] <= 2.6]
    front = ParetoFront.from_trials(within, search_fakes.OBJECTIVES)
    assert 0 < seen[-1].front_size == len(front.points)
    assert len(within) < len(trials)
