"""What the page says is what was measured; nothing of a run can break out of the page's data."""

import json
import re

import pytest
from report_runs import lost_trials, made_trials, make_run, page_data

from nas.base.errors import RunError
from nas.report.page.file import report_html, write_report


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])


def test_the_page_holds_its_data_and_asks_for_nothing_else(page_run):
    page = report_html(page_data(page_run))
    assert embedded(page) == json.loads(json.dumps(page_data(page_run)))
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w/]*", page.replace("// ", "")))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of SVG, not an address that is opened
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_text_of_a_run_cannot_end_the_script_that_holds_it(tmp_path):
    hostile = "</script><script>broken = 1</script><!-- \u2028 & \" '"
    trials = [*made_trials(10), *lost_trials(1, 10, hostile)]
    run = make_run(tmp_path / "a\"b'<i>&", trials, command=hostile)
    page = report_html(page_data(run))
    assert page.count("<script") == page.count("</script>") == 2
    assert embedded(page)["errors"] == [[hostile.splitlines()[0], 1]]
    assert embedded(page)["command"] == hostile
    assert "<title>a&quot;b&#x27;&lt;i&gt;&amp;: Pareto front</title>" in page


def test_a_run_without_a_trial_has_no_report(tmp_path):
    run = make_run(tmp_path / "r", lost_trials(2, 0), is_final=False)
    with pytest.raises(RunError, match="nothing was measured yet"):
        write_report(run)
    assert not run.report_path.exists()


def test_the_files_of_a_report_are_a_page_and_its_figures(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10))
    files = write_report(run)
    assert [file.relative_to(run.path).as_posix() for file in files] == [
        "report.html", "figures/front.png", "figures/front.pdf",
    ]  # fmt: skip
    assert all(file.stat().st_size > 5_000 for file in files)


def test_thousands_of_trials_stay_a_small_file(tmp_path):
    run = make_run(tmp_path / "r", made_trials(2_000))
    assert len(report_html(page_data(run)).encode()) < 1_350_000
