"""What a printed command begins with works for who started the program; what is given away says `nas`."""

import sys

import pytest

from nas.base.privacy import shared_command
from nas.base.program import command_line, keys_hint, program_name, rename_program, spaces_folder


@pytest.mark.parametrize(
    ("started", "is_on_path", "name"),
    [
        ("search.py", True, "python search.py"),
        ("../my clone/search.py", True, "python '../my clone/search.py'"),
        ("/venv/bin/nas", True, "nas"),
        ("/venv/lib/nas/__main__.py", True, "nas"),
        ("/venv/lib/nas/__main__.py", False, "python -m nas"),
        ("/venv/lib/pytest/__main__.py", False, "nas"),
        ("", False, "nas"),
    ],
)
def test_the_name_is_what_the_person_typed(monkeypatch, started, is_on_path, name):
    monkeypatch.setattr(sys, "argv", [started, "check"])
    monkeypatch.setattr("shutil.which", lambda _: "/venv/bin/nas" if is_on_path else None)
    assert program_name() == name
    assert command_line("show", "my run", 3) == f"{name} show 'my run' 3"


@pytest.mark.parametrize(
    "program",
    ["python search.py", "python3 /opt/a/search.py", "python /venv/bin/nas", "/venv/bin/nas", "python -m nas", "nas"],
)
def test_a_kept_command_gets_the_name_it_goes_by_now(program):
    assert rename_program(f"{program} run x.yaml", "python search.py") == "python search.py run x.yaml"
    assert shared_command(f"{program} run x.yaml") == "nas run x.yaml"
    assert rename_program(program) == "nas"


@pytest.mark.parametrize("command", ["nasty run", "python research.py.txt", "echo python search.py", ""])
def test_other_commands_stay(command):
    assert rename_program(command) == command


def test_the_page_of_keys_is_there(monkeypatch, tmp_path):
    page = spaces_folder() / "README.md"
    assert page.is_file()
    monkeypatch.chdir(spaces_folder().parent)
    assert keys_hint() == "every key: search_spaces/README.md"
    monkeypatch.chdir(tmp_path)
    assert keys_hint() == f"every key: {page}"
