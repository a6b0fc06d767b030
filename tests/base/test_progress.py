import re

import pytest

from nas.base import progress
from nas.base.progress import Reporter, turns


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


TEXT = "left 12:34  epoch 12.3/30  loss largest 2.12  loss smallest 2.30  loss random 2.20  gap +0.17  412 images/s"


@pytest.mark.parametrize("room", [9, 20, 29, 30, 48, 80, 200])
def test_parts_that_have_no_room_take_turns_and_the_first_stays(room):
    lines = turns(TEXT, room)
    first, *others = TEXT.split("  ")
    assert max(map(len, lines)) <= room
    assert all(line.startswith("left") for line in lines)
    if room >= len(first) + 2 + max(map(len, others)):
        assert [part for line in lines for part in line.split("  ")[1:]] == others
    words = {word for line in lines for word in line.split()} - {"…"}
    assert words <= set(TEXT.split())


def test_a_text_that_fits_is_one_line_and_one_of_a_single_part_ends_after_a_word():
    assert turns(TEXT, len(TEXT)) == [TEXT]
    assert turns("7 architectures on onnxruntime-cpu, nothing else runs", 40) == [
        "7 architectures on onnxruntime-cpu, …"
    ]


def test_a_bar_keeps_percent_and_time_left_at_80_columns(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(progress, "TURN_S", 1e9)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with Reporter().bar("search") as bar:
        bar(50, 200, f"left 12:34  trial 50/200  [bold]  {'best top-1 40.9 %  ' * 9}")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    (line,) = {line.rstrip() for line in re.split(r"[\r\n]+", shown) if "left" in line}
    assert re.fullmatch(r"search +━+[╸╺━ ]* +25% left 12:34  trial 50/200  \[bold\]", line)
    assert len(line) <= 80


def test_on_a_terminal_a_bar_is_drawn_on_standard_error(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Reporter().bar("search") as bar:
        bar(3, 4, "trial 3/4")
    printed = capsys.readouterr()
    assert "trial 3/4" in printed.err
    assert printed.out == ""
