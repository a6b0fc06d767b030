"""Run every command of the documentation in order, as a new user would; CI calls it after the tests.

    python tests/helpers/readme_commands.py                    # README.md at the root, then every page
    python tests/helpers/readme_commands.py docs/tutorial.md   # these alone

Two pages at a time, each in order, since most commands keep one core busy; a line begins with its page.

Fenced blocks are run in the order of the page: of `bash` every line (the install lines lose their `pip install` part,
which CI has done), of `python` the whole block in a process of its own. A block with a file name behind its language,
such as "```yaml shapes.yaml", is written to that file. A page of docs/ gets a fresh folder that has what a clone has,
and a short run `results/digits-1` where the page speaks of one. Lines after `# not run` in a block are for the reader
only. `# exit 0 or 1` behind a command: both are right, as it depends on what was measured; `# exit 2`: it is refused.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
README = "README.md"
PAGES = tuple(
    f"docs/{name}.md"
    for name in (
        "tutorial",
        "tour",
        "spaces",
        "data",
        "operators",
        "deploy",
        "dense",
        "python",
        "faq",
        "latency",
        "cluster",
        "training",
        "security",
    )
)
CLONE = ("nas", "search.py", "search_spaces", "examples", "docs", "tests", "pyproject.toml")
"""What a page finds in its folder: links, so that what it writes stays in that folder."""
DIGITS_RUN = "results/digits-1"
SHORT_RUN = f"nas run digits --run {DIGITS_RUN} --epochs 3 --trials 24 --workers 0 --set evaluate.final_rounds=3"

IMAGES = TemporaryDirectory(prefix="nas-docs-images-")
"""Of all pages, and not the user's own, as one of them empties it."""

MAKING_SHORT_RUN = Lock()
PAGES_AT_A_TIME = 2

FENCED = re.compile(r"^```(\w+)(?: ([\w./-]+))?\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
NOT_RUN = "# not run"


class Step(NamedTuple):
    """One thing to do.

    Attributes:
        kind: `bash`, `python` or `file`.
        text: A command, a program, or the content of a file.
        file: Its name.
        codes: Exit codes that are right.
    """

    kind: str
    text: str
    file: str = ""
    codes: tuple[int, ...] = (0,)


def steps(text: str) -> Iterator[Step]:
    """What a page does, in order."""
    for language, file, block in FENCED.findall(text):
        runnable = block.partition(NOT_RUN)[0]
        if file:
            yield Step("file", block, file)
        elif language == "python" and runnable.strip():
            yield Step("python", runnable)
        elif language == "bash":
            yield from _commands(runnable)


def _commands(block: str) -> Iterator[Step]:
    for line in block.replace("\\\n", " ").splitlines():
        words, _, comment = line.partition("  #")
        command = re.sub(r"^pip install -e \S+ && ", "", words.strip())
        if command and not command.startswith(("#", "git clone", "cd ")) and command.split()[0] != "pytest":
            said = re.search(r"\bexit (\d)(?: or (\d))?\b", comment)
            yield Step("bash", command, codes=tuple(map(int, filter(None, said.groups()))) if said else (0,))


def commands(text: str) -> list[str]:
    """Commands of all bash blocks, in order."""
    return [step.text for step in steps(text) if step.kind == "bash"]


def run(step: Step, folder: Path, page: str) -> bool:
    """Do it in a folder and say how it went; returns whether it ended as it should."""
    if step.kind == "file":
        (folder / step.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / step.file).write_text(step.text)
        return True
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", step.text] if step.kind == "python" else step.text,
        shell=step.kind == "bash",
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NAS_CACHE": IMAGES.name,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    shown = step.text if step.kind == "bash" else step.text.strip().splitlines()[0] + " ..."
    lines = [f"{time.monotonic() - started:6.1f} s  exit {done.returncode}  {shown}"]
    is_well = done.returncode in step.codes
    if not is_well:
        lines += [*done.stdout[-3000:].splitlines(), *done.stderr[-3000:].splitlines()]
    elif step.text == "python search.py":
        lines += done.stderr.splitlines()[-12:]
    print("\n".join(f"{page:>17} | {line}" for line in lines), flush=True)
    return is_well


def run_page(page: str, below: Path) -> tuple[int, bool]:
    """Do what a page says, until something fails; returns how much of it was done, and whether nothing failed.

    Args:
        page: Such as `docs/tutorial.md`.
        below: A folder for the folders of pages, the same for all.
    """
    text = (ROOT / page).read_text()
    folder = ROOT if page == README else _fresh(below, Path(page).stem)
    if page != README and DIGITS_RUN in text:
        made = below / "short" / DIGITS_RUN
        with MAKING_SHORT_RUN:
            if not made.exists() and not run(Step("bash", SHORT_RUN), _fresh(below, "short"), page):
                return 0, False
        shutil.copytree(made, folder / DIGITS_RUN)
    done = list(takewhile(bool, (run(step, folder, page) for step in steps(text))))
    return len(done), len(done) == len(list(steps(text)))


def _fresh(below: Path, name: str) -> Path:
    """A new folder with links to what a clone has."""
    (below / name).mkdir()
    for entry in CLONE:
        (below / name / entry).symlink_to(ROOT / entry)
    return below / name


def main() -> int:
    """Do what the named pages say, or all of them; a page ends at the first thing that fails. Returns the exit code."""
    started = time.monotonic()
    pages = sys.argv[1:] or (README, *PAGES)
    with TemporaryDirectory(prefix="pages-") as below, ThreadPoolExecutor(PAGES_AT_A_TIME) as pool:
        ended = list(pool.map(run_page, pages, [Path(below)] * len(pages)))
    failed = sum(not is_well for _, is_well in ended)
    print(f"{sum(done for done, _ in ended)} passed, {failed} failed in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
