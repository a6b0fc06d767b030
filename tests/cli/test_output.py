"""What is printed: formats, the width of a table, lines that can be copied."""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from report_runs import LATENCY_ROWS, made_trials, make_run
from small_runs import command

from nas.cli import output
from nas.cli.app import main
from nas.cli.options import Format
from nas.cli.output import fits, free_folder, next_validate, plain, print_result
from nas.report.table import Column, Table

VALUES = {"a": 1, "rows": [{"b": [2, 3]}]}


def table_of(values):
    return Table(title="title", columns=[Column("b", "{}")], rows=[(str(row["b"]),) for row in values["rows"]])


@pytest.mark.parametrize(
    ("asked", "has_terminal", "shown"),
    [
        (None, False, Format.TABLE),
        (None, True, Format.TABLE),
        (Format.JSON, True, Format.JSON),
        (Format.CSV, True, Format.CSV),
        (Format.TABLE, False, Format.TABLE),
    ],
)
def test_a_terminal_and_a_pipe_get_a_table_unless_something_is_asked_for(
    capsys, monkeypatch, asked, has_terminal, shown
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: has_terminal)
    print_result(asked, VALUES, table_of, VALUES["rows"])
    printed = capsys.readouterr().out
    if shown is Format.JSON:
        assert json.loads(printed) == VALUES
    elif shown is Format.CSV:
        assert printed == 'b\n"[2, 3]"\n'
    else:
        assert "title" in printed


def test_csv_may_be_text_already(capsys):
    print_result(Format.CSV, VALUES, table_of, "a,b\n")
    assert capsys.readouterr().out == "a,b\n"


def test_what_is_not_a_number_is_never_printed_as_json():
    with pytest.raises(ValueError, match="JSON"):
        print_result(Format.JSON, {"a": float("nan")}, table_of, [])


def test_a_table_fits_up_to_the_width_of_the_output():
    assert fits(Table(title="", columns=[Column("x" * (output.PIPED_WIDTH - 4))], rows=[]))
    assert not fits(Table(title="", columns=[Column("x" * (output.PIPED_WIDTH - 3))], rows=[]))


def test_plain_lines_are_not_broken(capsys):
    line = "a " * output.PIPED_WIDTH + "b"
    print_result(Format.TABLE, {}, lambda _: plain(line), [])
    assert capsys.readouterr().out.splitlines() == [line]


def test_output_that_is_piped_is_a_table(finished, capsys):
    assert main(["front", str(finished.folder)]) == 0
    assert "Pareto front:" in capsys.readouterr().out


def test_front_prints_what_holds_for_all_latencies(tmp_path):
    run = make_run(tmp_path / "r", made_trials(10), targets=2)
    printed = json.loads(command("front", run.path).stdout)
    assert printed["latency"] == LATENCY_ROWS
    assert "order repeats, tau 0.93" in command("front", run.path, "-f", "table").stdout


def test_the_front_says_what_makes_it_again_and_what_takes_a_network_from_it(tmp_path):
    made_by = f"nas run a.yaml {'--set train.lr=1e-3 ' * 12}".strip()
    run = make_run(tmp_path / "r", made_trials(10), command=made_by)
    commands = [made_by, f"nas export {run.path} --pick DIGEST --to DIGEST"]
    assert json.loads(command("front", run.path).stdout)["commands"] == commands
    lines = command("front", run.path, "-f", "table").stdout.splitlines()
    assert [line.rstrip() for line in lines[-2:]] == [f"$ {line}" for line in commands]  # whole, to be copied


def test_front_on_a_terminal_has_plots_and_other_formats_have_none(finished):
    assert "★" in command("front", finished.folder, "-f", "table").stdout.split("MACs per image")[0]
    assert "└" not in command("front", finished.folder).stdout


def on_a_terminal(width, *command_lines):
    """What command lines print, one after the other, on a pseudo-terminal of that many columns."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    program = (
        f"from nas.cli import main\nprint([main(words) for words in {[list(map(str, w)) for w in command_lines]!r}])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=writer, stdout=writer, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(writer)
    found = b""
    try:
        while block := os.read(reader, 65_536):
            found += block
    except OSError:  # a terminal whose last program has ended
        pass
    os.close(reader)
    process.wait()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.decode()).replace("\r\n", "\n")


def test_a_terminal_of_80_columns_cuts_no_number_unit_or_header(finished):
    lines = [
        ["front", finished.folder],
        ["show", finished.folder, "knee"],
        ["runs", finished.folder.parent],
        ["spaces"],
    ]
    text = on_a_terminal(80, *lines)
    assert text.rstrip().endswith("[0, 0, 0, 0]")
    assert "…" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("$ ")) <= 80
    assert "deit_small_patch16_224" in text
    for one in json.loads(finished.stdout)["points"]:
        (row,) = [line for line in text.splitlines() if f" {one['digest'][:8]} " in line and "top-1" not in line][:1]
        assert f" {one['top1']:.1f} ± " in row
    assert re.search(r"\nhead .* \d+\.\d %", text)


def test_what_is_no_terminal_breaks_no_sentence(tmp_path):
    run = make_run(tmp_path / "r", made_trials(40), targets=1)
    text = command("front", run.path, "-f", "table").stdout
    (verdict,) = [line for line in text.splitlines() if "of the best plain ViT" in line]
    assert len(verdict) > output.PIPED_WIDTH
    assert verdict.endswith(".")


def test_the_folder_of_the_next_bundle_is_a_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my_vit", "my_vit-2", "my_vit-3"):
        assert free_folder("my_vit") == name
        (tmp_path / name).mkdir()


def test_what_makes_the_number_of_a_card_again_has_the_data_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(output.COMMON, "quiet", False)
    settings = {"data.spec": "folder:my pets", "data.test_fraction": 0.3, "data.stored_size": 64}
    run = make_run(tmp_path / "r", made_trials(10), config={"data": {k.split(".")[1]: v for k, v in settings.items()}})
    next_validate(Path("vit"), run.path, None)
    next_validate(Path("vit"), run.path, "folder:here")
    of_run, here = capsys.readouterr().err.splitlines()
    assert of_run == "next      nas validate vit --data 'folder:my pets' --set data.test_fraction=0.3"
    assert here == "next      nas validate vit --data folder:here --set data.test_fraction=0.3"


def test_a_run_ends_with_an_export_into_a_folder_that_is_free(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.folder, tmp_path / "r")
    (tmp_path / "my_vit").mkdir()
    monkeypatch.chdir(tmp_path)
    done = command(*(word.replace(str(finished.folder), str(tmp_path / "r")) for word in finished.arguments))
    assert done.code == 0, done.stderr
    assert done.stderr.endswith(f"next      nas export {tmp_path / 'r'} --pick knee --to my_vit-2\n")
