"""The name of this program, in what a person types and in what is given away, and the spaces that come with it."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

NAME = "nas"
DEFAULT_TRIALS = 200  # architectures that a run measures where nothing is said
MOST_MINUTES = 1e7
_TYPED = re.compile(r"(?:\S*python[\d.]*\s+(?:-m\s+nas|\S*search\.py|\S*/nas)|\S*/nas|nas)(?=\s|$)")


def program_name() -> str:
    """What a command line of this program begins with, for who started it: `nas`, or `python search.py` in a clone."""
    started = Path(sys.argv[0])
    if started.name == "search.py":
        return f"python {shlex.quote(sys.argv[0])}"
    if started.parts[-2:] == (NAME, "__main__.py") and shutil.which(NAME) is None:
        return f"python -m {NAME}"
    return NAME


def command_line(*words: object) -> str:
    """A command line of this program, which works as it is typed."""
    return f"{program_name()} {shlex.join(map(str, words))}"


def rename_program(command: str, name: str = NAME) -> str:
    """A command line that was kept, with another name for this program; any other one as it is."""
    found = _TYPED.match(command)
    return command if found is None else name + command[found.end() :]


def spaces_folder() -> Path:
    """Where the search spaces lie that come with the program: in the package, or beside it in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / inside.name


def keys_hint() -> str:
    """Where every key of a search space is explained, as who is in this folder opens it."""
    page = spaces_folder() / "README.md"
    return f"every key: {os.path.relpath(page) if page.is_relative_to(Path.cwd()) else page}"
