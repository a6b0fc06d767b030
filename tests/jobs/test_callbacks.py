import csv
import sys
from dataclasses import replace

import pytest
from small_runs import begin, command, one_thread, run_arguments, trainer
from threadpoolctl import threadpool_info, threadpool_limits

from nas.base.errors import RunError
from nas.base.progress import Reporter
from nas.jobs import stages
from nas.jobs.callbacks import TensorBoard, own_callbacks
from nas.jobs.session import Budget, reopen
from nas.runs.directory import RunDirectory


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


class Listener:
    """Writes down what it hears."""

    def __init__(self):
        self.steps, self.trials, self.fronts, self.runs = [], [], [], set()

    def on_train(self, run, progress):
        self.runs.add(run.path)
        self.steps.append(progress.step)

    def on_trial(self, run, progress):
        self.runs.add(run.path)
        self.trials.append(progress.trial)

    def on_front(self, run, front):
        self.runs.add(run.path)
        self.fronts.append(front)


class NoMoreError(Exception):
    pass


class Tired(Listener):
    """Has enough of the third trial."""

    def on_trial(self, run, progress):
        super().on_trial(run, progress)
        if len(self.trials) == 3:
            raise NoMoreError


class OnlyFront:
    """Listens to one of the three."""

    def __init__(self):
        self.fronts = []

    def on_front(self, _, front):
        self.fronts.append(front)


def test_what_a_callback_lacks_is_not_called():
    mine, all_three = OnlyFront(), Listener()
    told, same = own_callbacks([mine, all_three])
    assert same is all_three
    told.on_train(None, None)
    told.on_trial(None, None)
    told.on_front(None, "front")
    assert mine.fronts == ["front"]


PLAIN = ("train.batch_size=200", "search.objectives=[top1, macs]")


def watched(tmp_path, *callbacks):
    return replace(begin(tmp_path, *PLAIN), callbacks=callbacks)


def again(session, *callbacks):
    return replace(reopen(session.run.path, Reporter(quiet=True)), callbacks=callbacks)


def test_a_callback_hears_of_every_step_every_paid_trial_and_the_front(tmp_path):
    listener = Listener()
    session = watched(tmp_path, listener)
    front = stages.run(session, Budget(trials=6))
    assert listener.steps == list(range(1, len(session.data.train) // 200 + 1))
    paid = [trial for trial in session.run.trials() if trial.state in ("complete", "pruned", "failed")]
    assert listener.trials == paid
    assert [heard.points for heard in listener.fronts] == [front.points]
    assert listener.runs == {session.run.path}

    later = Listener()
    stages.run(again(session, later), Budget(trials=8))
    assert later.steps == []
    assert len(later.trials) == 2
    assert len(later.fronts) == 1


def test_what_a_callback_raises_costs_nothing_that_is_finished(tmp_path):
    tired = Tired()
    session = watched(tmp_path, tired)
    with pytest.raises(NoMoreError):
        stages.run(session, Budget(trials=6))
    rested = Listener()
    stages.run(again(session, rested), Budget(trials=6))
    ended = [trial.architecture for trial in session.run.trials() if trial.state != "repeated"]
    assert [trial.architecture for trial in tired.trials + rested.trials] == ended

    (tmp_path / "other").mkdir()
    undisturbed = watched(tmp_path / "other")
    stages.run(undisturbed, Budget(trials=6))
    assert [trial.architecture for trial in undisturbed.run.trials()] == [
        trial.architecture for trial in session.run.trials()
    ]


def test_a_search_leaves_the_cores_to_its_workers_and_gives_them_back(tmp_path):
    seen = []

    class Counting(Listener):
        def on_trial(self, run, progress):
            super().on_trial(run, progress)
            seen.append(blas_threads())

    with threadpool_limits(2, "blas"):
        stages.run(watched(tmp_path, Counting()), Budget(trials=2))
        assert blas_threads() == {2}
    assert seen == [{1}, {1}]


def blas_threads():
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_what_the_run_has_written(tmp_path):
    run = RunDirectory(tmp_path / "r")
    done = command(*run_arguments(run.path, "--tensorboard", "--trials=12"))
    assert done.code == 0, done.stderr
    with run.training_log.open(newline="") as file:
        logged = list(csv.DictReader(file))
    trained = scalars(run.tensorboard_dir / "train")
    losses = dict(trained["loss_nats/largest"])
    assert losses == pytest.approx({int(row["step"]): float(row["loss_largest"]) for row in logged}, rel=1e-4)
    found = scalars(run.tensorboard_dir / "search")
    trials = RunDirectory.open(run.path).trials()
    paid = {trial.number: trial.measurement for trial in trials if trial.state in ("complete", "pruned")}
    assert len(paid) == 12
    assert dict(found["trials/macs"]) == pytest.approx(
        {number: measurement.values["macs"] for number, measurement in paid.items()}
    )
    volumes = [value for _, value in found["search/hypervolume"]]
    assert volumes == sorted(volumes)
    assert volumes[-1] > 0
    points = scalars(run.tensorboard_dir / "front")["front/top1_over_kMACs"]
    assert len(points) == len(run.front()["points"])


def test_steps_that_a_training_does_again_are_shown_once(tmp_path):
    run = RunDirectory(tmp_path)
    seen = []

    def stop(progress):
        first.on_train(run, progress)
        if progress.step == 5:
            raise NoMoreError

    first, second = TensorBoard(), TensorBoard()
    with pytest.raises(NoMoreError):
        trainer(run.supernet_dir).run(stop)
    first.close()
    newest = run.supernet_dir / "step-00000005.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])

    def go_on(progress):
        seen.append((progress.step, progress.losses[0]))
        second.on_train(run, progress)

    trainer(run.supernet_dir).run(go_on)
    second.close()
    assert seen[0][0] == 5
    shown = scalars(run.tensorboard_dir / "train")["loss_nats/largest"]
    assert [step for step, _ in shown] == list(range(1, 9))
    assert shown[4:] == [(step, pytest.approx(loss)) for step, loss in seen]


def test_a_resumed_search_withdraws_no_trial_that_ended_before(tmp_path):
    told = []

    class Keeper(Listener):
        def on_trial(self, run, progress):  # noqa: ARG002
            told.append(progress)

    session = watched(tmp_path, Keeper())
    stages.run(session, Budget(trials=4))
    for progress in (told[3], told[1]):  # a process each; number 1 was in flight when the first one died
        board = TensorBoard()
        board.on_trial(session.run, progress)
        board.close()
    shown = {step for step, _ in scalars(session.run.tensorboard_dir / "search")["search/hypervolume"]}
    assert shown == {told[3].trial.number, told[1].trial.number}


def test_a_missing_tensorboard_is_said_before_there_is_a_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(RunError, match="tensorboard is not installed"):
        TensorBoard()
    done = command(*run_arguments(tmp_path / "r", "--tensorboard"))
    assert done.code == 2
    assert "pip install tensorboard" in done.stderr
    assert not (tmp_path / "r").exists()
