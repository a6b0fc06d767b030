"""The help says what an option takes, in a word that a person reads."""

import re

import pytest
from small_runs import command
from typer.main import get_command

from nas.cli.app import app
from nas.cli.metavars import readable

COMMANDS = sorted(get_command(app).commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_names_a_type_of_python(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", command(name, "--help").stdout)
    options = shown.partition("Options")[2]
    assert not re.findall(r"<(?:bool|int|int range|float|float range|str|list\[str\]|path)>|BOOLEAN|TEXT", options)


def test_what_stands_there_goes_by_name_then_by_kind():
    options = {p.name: p.metavar for p in readable(get_command(app)).commands["run"].params}
    wanted = {
        "data": "SPEC", "settings": "KEY=VALUE", "target": "TARGET", "config": "FILE", "run": "DIR", "trials": "N",
        "minutes": "X", "device": "NAME", "dry_run": "", "space": "SPACE", "format_": None,
    }  # fmt: skip
    assert {name: options[name] for name in wanted} == wanted
