import re

from nas.base import progress
from nas.base.progress import Reporter


def test_lines_go_to_standard_error_only(capsys):
    Reporter().line("data", "1,797 images")
    printed = capsys.readouterr()
    assert printed.err == "data      1,797 images\n"
    assert printed.out == ""


def test_a_quiet_reporter_says_nothing(capsys):
    reporter = Reporter(quiet=True)
    reporter.line("data", "1,797 images")
    with reporter.bar("search") as bar:
        bar(1, 1, "done")
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_the_last_line_is_shown_and_most_others_are_not(capsys):
    with Reporter().bar("search") as bar:
        for done in range(1, 101):
            bar(done, 100, f"trial {done}")
    assert capsys.readouterr().err == "search    trial 100\n"


def test_without_a_terminal_a_line_is_shown_every_few_seconds(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    with Reporter().bar("search") as bar:
        bar(1, None, "one")
        bar(2, None, "two")
    assert capsys.readouterr().err == "search    one\nsearch    two\n"


def test_a_bar_keeps_percent_and_time_left_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Reporter().bar("search") as bar:
        bar(50, 200, f"left 12:34  trial 50/200  [bold]{'best top-1 40.9 %  ' * 9}")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    (line,) = {line.rstrip() for line in re.split(r"[\r\n]+", shown) if "left" in line}
    assert re.match(r"search +━+[╸╺━ ]* +25% left 12:34  trial 50/200  \[bold\]best", line)
    assert line.endswith("…")
    assert len(line) <= 80


def test_on_a_terminal_a_bar_is_drawn_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Reporter().bar("search") as bar:
        bar(3, 4, "trial 3/4")
    printed = capsys.readouterr()
    assert "trial 3/4" in printed.err
    assert printed.out == ""
