"""Spaces that come with the program are found by name, in any folder."""

import pytest

from nas.base.errors import SearchSpaceError
from nas.settings.shipped import read_space_text, shipped_spaces
from nas.space.space import read_space


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_one_is_found_by_its_name():
    assert {"digits", "cifar_small", "joint_tiny"} <= set(shipped_spaces())
    for name, path in shipped_spaces().items():
        assert read_space_text(name) == path.read_text()
        assert read_space(name).digest == read_space(path).digest


def test_a_file_of_that_name_comes_first_and_a_folder_does_not_count(tmp_path):
    (tmp_path / "digits").mkdir()
    assert read_space("digits").name == "digits"
    (tmp_path / "digits").rmdir()
    (tmp_path / "digits").write_text("mine: true\n")
    assert read_space_text("digits") == "mine: true\n"


def test_what_is_neither_is_told_with_what_there_is(tmp_path):
    with pytest.raises(SearchSpaceError) as caught:
        read_space("cifar_smal")
    assert 'did you mean "cifar_small"?' in caught.value.message
    assert all(name in caught.value.hint for name in shipped_spaces())
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(SearchSpaceError, match=r'did you mean "mine\.yaml"'):
        read_space("mine.yml")
