import csv
import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import few_digits, one_thread, tiny_space, trainer

from nas.arch.diagnostics import dead_operators
from nas.base.errors import TrainingError
from nas.model.instruments import Instruments, watched_networks
from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace
from nas.training import health
from nas.training.health import TrainLog
from nas.training.trainer import SupernetTrainer


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


class SometimesNaN:
    """A teacher that answers with no number at some of its calls."""

    def __init__(self, *calls):
        self.calls, self.count = calls, 0

    def __call__(self, images):
        self.count += 1
        return torch.full((len(images), 10), math.nan if self.count in self.calls else 0.0)


def taught(directory, teacher, minutes=1e-9):
    return SupernetTrainer(
        Supernet(tiny_space()),
        few_digits().train,
        TrainConfig(epochs=2, batch_size=32, warmup_epochs=0, checkpoint_minutes=minutes),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=directory,
        teacher=teacher,
    )


def test_a_training_that_diverges_goes_on_from_its_checkpoint_with_half_the_learning_rate(tmp_path):
    seen = []
    diverging = taught(tmp_path, SometimesNaN(4))
    supernet = diverging.run(seen.append)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    warnings = [progress.warning for progress in seen if progress.warning]
    assert len(warnings) == 1
    assert "step 3" in warnings[0]
    assert "0.5 of train.lr" in warnings[0]
    assert all(tensor.isfinite().all() for tensor in supernet.state_dict().values())
    steady = []
    taught(tmp_path / "steady", SometimesNaN()).run(steady.append)
    assert seen[3].lr == pytest.approx(steady[3].lr / 2)
    assert seen[2].lr == pytest.approx(steady[2].lr)


def test_the_lowered_learning_rate_survives_a_restart_of_the_process(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(progress):
        if progress.step == 6:
            raise StoppedError

    with pytest.raises(StoppedError):
        taught(tmp_path, SometimesNaN(4)).run(stop)
    resumed = taught(tmp_path, SometimesNaN())
    assert resumed.resume() == 6
    assert resumed.lr_scale == 0.5


def test_a_training_that_diverges_again_and_again_stops_with_its_last_good_checkpoint(tmp_path):
    diverging = taught(tmp_path, SometimesNaN(*range(4, 20)))
    with pytest.raises(TrainingError, match="lowering the learning rate 3 times did not help"):
        diverging.run()
    again = taught(tmp_path, SometimesNaN())
    assert again.resume() == 3
    assert all(p.isfinite().all() for p in again.supernet.parameters())


def logged_steps(directory):
    with (directory / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_steps_that_are_done_again_after_a_divergence_are_in_the_log_once(tmp_path):
    taught(tmp_path, SometimesNaN(6), minutes=1e6).run()  # no checkpoint but the first: steps 1 to 5 come again
    assert logged_steps(tmp_path) == list(range(1, 9))


def test_steps_that_are_done_again_since_the_newest_checkpoint_was_torn_are_in_the_log_once(tmp_path):
    trainer(tmp_path).run()
    torn = tmp_path / "step-00000008.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    trainer(tmp_path).run()
    assert logged_steps(tmp_path) == list(range(1, 9))


def test_the_log_has_the_course_of_the_training_once_although_it_was_killed(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(progress):
        if progress.step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer(tmp_path).run(stop)
    seen = []
    trainer(tmp_path).run(seen.append)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert float(rows[-1]["loss_largest"]) == pytest.approx(seen[-1].losses[0], rel=1e-4)
    assert float(rows[-1]["loss_smallest"]) - float(rows[-1]["loss_largest"]) == pytest.approx(seen[-1].gap, abs=1e-4)


def logged(directory):
    with (directory / "log.csv").open(newline="") as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]


@pytest.mark.parametrize("ema_decay", [0.0, 0.998])
def test_the_log_says_how_the_operators_do_in_some_of_its_rows_also_when_it_was_killed(
    tmp_path, monkeypatch, ema_decay
):
    monkeypatch.setattr(health, "LEAST_BETWEEN", 3)
    monkeypatch.setattr(health, "LOGGED", 20)
    for until in (2, 3, 5, None):
        trainer(tmp_path / "killed", ema_decay=ema_decay).run(until=until)
    straight = trainer(tmp_path / "straight", ema_decay=ema_decay)
    trained = straight.run()
    rows = logged(tmp_path / "straight")
    assert rows == logged(tmp_path / "killed")
    assert [int(row["step"]) for row in rows if row["static_entropy"]] == [1, 3, 6, 8]
    assert {row["linear_scale"] for row in rows} == {""}  # the space has none
    numbers = np.linspace(0, len(straight.images) - 1, 8).astype(int)
    found = Instruments(trained, watched_networks(trained.space)).read(straight.images.normalized(numbers))
    assert float(rows[-1]["static_entropy"]) == pytest.approx(found["static_entropy"], rel=1e-6)
    assert set(found) == {"static_entropy", "static_kl"}


def test_looking_at_the_operators_changes_no_weight(tmp_path, monkeypatch):
    trainer(tmp_path / "looked").run()
    monkeypatch.setattr(TrainLog, "diagnoses", lambda *_: False)
    trainer(tmp_path / "blind").run()
    states = [load_file(tmp_path / name / "step-00000008.safetensors") for name in ("looked", "blind")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(("steps", "looks"), [(2000, 21), (2345, 23), (100_000, 21), (1000, 11), (7, 2)])
def test_the_operators_are_looked_at_some_twenty_times_but_no_two_times_within_a_hundred_steps(tmp_path, steps, looks):
    log = TrainLog(tmp_path / "log.csv", steps)
    at = [step for step in range(1, steps + 1) if log.diagnoses(step)]
    assert len(at) == looks
    assert at[-1] == steps
    assert all(step % log.every == 0 for step in at[:-1])
    assert min((later - step for step, later in itertools.pairwise(at[1:-1])), default=100) >= 100


def test_the_log_of_an_earlier_version_goes_on_with_empty_cells(tmp_path):
    trainer(tmp_path).run(until=4)
    rows = logged(tmp_path)
    with (tmp_path / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, TrainLog.MEASURED, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([{**row, "images_per_second": 1} for row in rows])
    trainer(tmp_path).run()
    found = logged(tmp_path)
    assert [int(row["step"]) for row in found] == list(range(1, 9))
    assert [bool(row["static_kl"]) for row in found] == [False] * 7 + [True]


def pooling_by_convolution():
    domain = LayerDomain(num_tokens=(16, 4), reducer=("conv_pool",), num_heads=(1,), mlp_ratio=(1.0,))
    fixed = {"backbone": tiny_space().backbone, "embed_dim": (16,), "depth": (2,)}
    return SearchSpace(name="pooling", layers=(domain, domain), **fixed)


@pytest.mark.parametrize(("lr", "dead"), [(1e-8, True), (1e-2, False)])
def test_an_operator_that_learns_nothing_is_called_dead_after_a_training_and_one_that_learns_is_not(tmp_path, lr, dead):
    training = SupernetTrainer(
        Supernet(pooling_by_convolution()),
        few_digits().train,
        TrainConfig(epochs=5, batch_size=32, warmup_epochs=0, lr=lr),
        seed=0,
        device=torch.device("cpu"),
        precision="fp32",
        directory=tmp_path,
    )
    training.run()
    found = {name: float(value) for name, value in logged(tmp_path)[-1].items() if value}
    assert found.keys() >= {"conv_pool_change"}
    lines = dead_operators(found, 1.0)
    assert bool(lines) == dead, found
    assert all("conv_pool is dead" in line and "leave conv_pool out" in line for line in lines)


def test_a_batch_too_small_for_its_subnets_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="need at least 4 images"):
        trainer(tmp_path, batch_size=3, num_random=3)
