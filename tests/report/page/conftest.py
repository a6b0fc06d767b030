"""One page for all tests that use it by hand."""

import pytest
from report_browser import opened
from report_runs import page_run


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A run with its report; only to be looked at."""
    return page_run(tmp_path_factory.mktemp("runs") / "page-1")


@pytest.fixture
def run(written):
    """The run of the page; modules that change theirs have another of this name."""
    return written


@pytest.fixture
def page(browser, run):
    """The page as it is when it has just been opened."""
    return opened(browser, run)
