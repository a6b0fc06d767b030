"""Where a person types commands."""

import pytest
from small_spaces import TINY


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The working folder, with the tiny space in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path
