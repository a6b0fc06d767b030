import csv
import math

import pytest
import torch
from small_runs import few_digits, one_thread, tiny_space, trainer

from nas.base.errors import TrainingError
from nas.model.supernet import Supernet
from nas.settings.config import TrainConfig
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


def test_a_batch_too_small_for_its_subnets_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="need at least 4 images"):
        trainer(tmp_path, batch_size=3, num_random=3)
