import pytest
from small_runs import TINY

from nas.jobs.dry_run import rehearsal


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a space in it; rehearsals are as short as can be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "STAGE_S", 0.0)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path
