import shutil

import pytest
import torch
from small_runs import begin, one_thread

from nas.base.errors import CheckpointError, RunError
from nas.jobs import stages
from nas.training.trained import load_trained, state_digest, trained_weights, weights_digest


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def load(session):
    return load_trained(session.run, session.space, session.device)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_digest_sees_names_and_values():
    weights = {"a": torch.zeros(3), "b": torch.ones(2)}
    assert state_digest(weights) == state_digest(dict(reversed(weights.items())))
    others = [{"a": torch.zeros(3)}, {"a": torch.zeros(3), "c": torch.ones(2)}, weights | {"b": torch.zeros(2)}]
    assert len({state_digest(each) for each in [weights, *others]}) == 4


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_what_is_loaded_is_what_training_returned(tmp_path, decay):
    session = begin(tmp_path, f"train.ema_decay={decay}", "train.epochs=2")
    trained = stages.train(session)
    found = load(session)
    assert equal(found.state_dict(), trained.state_dict())
    assert not found.training
    assert state_digest(found.state_dict()) == session.run.manifest.supernet_digest == weights_digest(session.run)


def test_a_training_that_has_not_ended_has_no_weights(tmp_path):
    session = begin(tmp_path, "train.epochs=2")
    with pytest.raises(RunError, match="the supernet is not trained yet") as caught:
        load(session)
    assert caught.value.hint.endswith(f"tiny.yaml --run {session.run.path}")
    stages.supernet_trainer(session).save(3)
    assert trained_weights(session.run) is None
    with pytest.raises(RunError, match="the supernet is not trained yet"):
        weights_digest(session.run)


def test_weights_of_an_earlier_step_are_not_those_of_the_run(tmp_path):
    """Where the newest checkpoint is damaged, the training goes on from the one before."""
    session = begin(tmp_path, "train.epochs=2", "train.checkpoint_minutes=1e-9")
    trained = stages.train(session)
    newest = max(session.run.supernet_dir.glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(RunError, match="the supernet is not trained yet"):
        load(session)
    stages.train(session)
    assert equal(load(session).state_dict(), trained.state_dict())


def test_checkpoints_of_another_run_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = begin(tmp_path / "a"), begin(tmp_path / "b", "seed=1")
    stages.train(one)
    stages.train(other)
    shutil.rmtree(one.run.supernet_dir)
    shutil.copytree(other.run.supernet_dir, one.run.supernet_dir)
    with pytest.raises(CheckpointError, match="belongs to something else"):
        load(one)
