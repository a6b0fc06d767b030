import os

import pytest
import torch

from nas.base.disk import DiskError, writing
from nas.base.errors import CheckpointError
from nas.training.checkpoint import KEPT, load_checkpoint, save_checkpoint

IDENTITY = {"space": "abc", "recipe": {"lr": 0.1}}


def tensors(step):
    return {"a": torch.full((2, 3), float(step)), "b.c": torch.arange(4)}


def save(directory, *steps):
    for step in steps:
        save_checkpoint(directory, step, tensors(step), IDENTITY)


def load(directory, expected=IDENTITY):
    return load_checkpoint(directory, expected=expected)


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "new", 7)
    found = load(tmp_path / "new")
    assert found.step == 7
    assert found.tensors.keys() == tensors(7).keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors(7).items())
    assert found.metadata["recipe"] == {"lr": 0.1}


def test_tensors_that_are_views_of_others_are_saved_whole(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    save_checkpoint(tmp_path, 1, {"column": whole[:, 1], "turned": whole.T}, IDENTITY)
    found = load(tmp_path).tensors
    assert torch.equal(found["column"], whole[:, 1])
    assert torch.equal(found["turned"], whole.T)


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path):
    assert load(tmp_path / "absent") is None
    assert load(tmp_path) is None


def test_the_newest_is_loaded_and_the_oldest_are_dropped(tmp_path):
    save(tmp_path, 1, 2, 10, 9)
    assert load(tmp_path).step == 10
    assert len(list(tmp_path.glob("*.json"))) == len(list(tmp_path.glob("*.safetensors"))) == KEPT


def test_what_a_killed_writer_left_is_passed_over_and_then_removed(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-00000002.tmp").write_bytes(b"half")
    (tmp_path / "step-00000002.safetensors").write_bytes(b"tensors without their record")
    assert load(tmp_path).step == 1
    save(tmp_path, 3)
    assert sorted({path.stem for path in tmp_path.iterdir()}) == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".safetensors", lambda content: content[:-1]),
        (".safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (".safetensors", lambda _: b""),
        (".json", lambda content: content[: len(content) // 2]),
        (".json", lambda _: b"[]"),
        (".json", lambda _: b"{}"),
    ],
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, suffix, damage):
    save(tmp_path, 1, 2)
    newest = tmp_path / f"step-00000002{suffix}"
    newest.write_bytes(damage(newest.read_bytes()))
    found = load(tmp_path)
    assert found.step == 1
    assert torch.equal(found.tensors["a"], tensors(1)["a"])


def test_a_missing_file_of_tensors_gives_way_to_the_checkpoint_before(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000002.safetensors").unlink()
    assert load(tmp_path).step == 1


def test_no_whole_checkpoint_among_some_is_an_error(tmp_path):
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="none of 2 checkpoints is whole") as caught:
        load(tmp_path)
    assert caught.value.hint


def test_a_checkpoint_of_something_else_is_refused_with_every_difference(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, {"space": "xyz", "recipe": {"lr": 0.1}, "seed": 3})
    assert "space: 'abc', expected 'xyz'" in caught.value.message
    assert "seed: None, expected 3" in caught.value.message
    assert "recipe" not in caught.value.message


def test_a_checkpoint_of_an_earlier_version_means_the_default_by_a_key_that_it_lacks(tmp_path):
    save(tmp_path, 1)
    expected = {"space": "abc", "recipe": {"lr": 0.1, "added_later": "off"}}
    defaults = {"recipe": {"lr": 0.5, "added_later": "off"}}
    assert load_checkpoint(tmp_path, expected=expected, defaults=defaults).step == 1
    for other in ({"added_later": "on"}, {"lr": 0.5}):
        with pytest.raises(CheckpointError, match="recipe"):
            load_checkpoint(
                tmp_path, expected={**expected, "recipe": {**expected["recipe"], **other}}, defaults=defaults
            )


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_users_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save(tmp_path / "c", 7)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()} == {mode}


def test_a_limit_on_the_size_of_files_is_told_of_torchs_own_archives(tmp_path, request):
    torch.save(torch.zeros(1), tmp_path / "whole")  # imports what it needs: bytecode would be cut off, too
    request.getfixturevalue("small_files")
    with pytest.raises(DiskError, match=r"graph: not written: "), writing(tmp_path / "graph"):
        torch.save(torch.zeros(1000), tmp_path / "scratch")
