"""What the README says of the tree and of the command line holds."""

import re
import shlex
from pathlib import Path

from readme_commands import commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_two_commands_set_everything_up():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert [block.strip() for block in blocks[:2]] == [
        "pip install -e . && python search.py",
        'pip install -e ".[test]" && pytest',
    ]


def test_every_command_is_one_of_the_program():
    found = commands(README)
    assert found[0] == "python search.py"
    for command in found[1:]:
        assert shlex.split(command)[0] == "nas", command


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_it_is_short_and_its_first_screen_has_a_picture():
    lines = README.splitlines()
    assert len(lines) <= 120
    assert any(line.startswith("![") for line in lines[:24])
