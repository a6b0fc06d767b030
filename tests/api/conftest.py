import pytest
from api_programs import SEARCH
from small_runs import TINY, python


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the program `SEARCH` was run: a run `r`."""
    path = tmp_path_factory.mktemp("api")
    (path / "tiny.yaml").write_text(TINY)
    done = python(SEARCH + "print(len(run.front))", path)
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout) >= 1
    return path
