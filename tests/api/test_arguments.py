from pathlib import Path

import pytest
from small_spaces import tiny_space

import nas
from nas.api.arguments import given_architecture, pick_of


def test_an_architecture_is_given_as_itself_as_its_values_or_as_text(tmp_path):
    architecture = tiny_space().smallest()
    assert given_architecture(architecture) is architecture
    assert given_architecture(architecture.to_dict()) == architecture
    assert given_architecture(tmp_path / "a.json") == str(tmp_path / "a.json")
    with pick_of("knee") as pick:
        assert pick == "knee"
    with pick_of(architecture.to_dict()) as pick:
        assert nas.Architecture.from_json(Path(pick).read_text()) == architecture


@pytest.mark.parametrize("given", [3, None, ["knee"]])
def test_what_is_no_architecture_is_said(given):
    with pytest.raises(nas.ConfigError, match="is none") as caught:
        given_architecture(given)
    assert "its to_dict()" in caught.value.hint
