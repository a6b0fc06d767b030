"""What the README says of the tree and of the command line holds."""

import re
import shlex
from pathlib import Path

from readme_commands import commands

import nas

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_file_map_is_that_of_the_package():
    block = re.search(r"^```text\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    package = re.findall(r"^    (\S+\.py\s+.+)$", nas.__doc__ or "", flags=re.MULTILINE)
    assert block[1].splitlines() == [f"nas/{row}" for row in package]


def test_two_commands_set_everything_up():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert [block.strip() for block in blocks[:2]] == [
        "pip install -e . && python search.py",
        'pip install -e ".[test]" && pytest -n 2 --dist loadfile',
    ]


def test_every_command_is_one_of_the_program():
    found = commands(README)
    assert "python search.py" in found
    for command in found:
        assert shlex.split(command)[:2] == ["python", "search.py"], command


def test_every_linked_file_exists():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
