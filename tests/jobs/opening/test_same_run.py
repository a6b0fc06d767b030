from dataclasses import replace

import pytest
from small_runs import begin

from nas.jobs.opening.same_run import differences, found_spec, knowing_run, space_differences, typed_folders


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return begin(tmp_path)


def test_a_run_does_not_differ_from_itself(session):
    identity = {"space_digest": session.space.digest, "splits": session.data.info.hashes}
    assert differences(session.run, session.config, identity) == []
    assert differences(session.run, None, identity) == []


def test_all_differences_are_named(session):
    hashes = {**session.data.info.hashes, "train": "other"}
    asked = session.config.with_epochs(7).model_copy(update={"seed": 5})
    found = differences(session.run, asked, {"space_digest": "another", "splits": hashes})
    assert [line.partition(":")[0] for line in found] == ["seed", "train.epochs", "space_digest", "train split"]


def test_of_another_space_the_keys_are_named(session):
    space = session.space
    assert space_differences(space, space) == []
    bounded = replace(space, constraints=replace(space.constraints, max_macs=100_000.0))
    identity = {"space_digest": bounded.digest}
    assert differences(session.run, session.config, identity, bounded) == [
        f"space_digest: {space.digest} in the run, {bounded.digest} now",
        "constraints.max_macs: null in the run, 100000.0 asked",
    ]
    heads = [replace(layer, num_heads=(1,)) for layer in space.layers]
    (line,) = space_differences(space, replace(space, layers=tuple(heads)))
    assert line.startswith("layers.num_heads: ")
    (line,) = space_differences(space, replace(space, layers=(heads[0], *space.layers[1:])))
    assert line.startswith("layers.0.num_heads: ")


def test_where_the_images_are_is_no_difference_and_the_hashes_say_it(session):
    moved = session.config.model_copy(update={"data": session.config.data.model_copy(update={"spec": "folder:there"})})
    assert differences(session.run, moved, {}) == []


def test_paths_start_where_the_command_was_typed(session, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert tmp_path in [folder.resolve() for folder in typed_folders(session.run)]
    assert found_spec(session.run, session.config) == "digits"
    assert knowing_run(session.run) is session.run
    assert replace(session).folders
