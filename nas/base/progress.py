"""Words for people while something long is running: on standard error, never on standard output."""

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas.base.privacy import hide_secrets, visible

BAR_WIDTH = 16
BESIDE_TEXT = 9 + BAR_WIDTH + 4 + 3  # columns of label, bar and percent, and the blanks between them
PLAIN_EVERY_S = 10.0  # without a terminal: one line this often, and one at the end
TURN_S = 4.0  # that parts of a text are shown before the next ones


Bar = Callable[[int, int | None, str], None]
"""Shows that so many of a total are done, and what is to be said of it, in parts two blanks apart.

Where not all parts have room, the first stays and the others take turns.
"""


def turns(text: str, room: int) -> list[str]:
    """The parts of a text in lines of at most `room` characters, the first part in each; none is cut within a word."""
    first, *others = text.split("  ")
    first = _shortened(first, room)
    lines = [first]
    for part in others:
        if len(lines[-1]) + 2 + len(part) <= room:
            lines[-1] += f"  {part}"
        elif short := _shortened(part, room - len(first) - 2):
            lines.append(f"{first}  {short}")
    return lines if len(lines) == 1 or lines[0] != first else lines[1:]


def _shortened(text: str, room: int) -> str:
    """As many of its words as there is room for; empty where that is none."""
    if len(text) <= room:
        return text
    return textwrap.shorten(text, room, placeholder=" …").removeprefix(" …") if room > 2 else ""


class Reporter:
    """Lines and progress bars on standard error, unless `quiet`; a bar is redrawn on a terminal, else plain lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live = sys.stderr.isatty()

    def line(self, label: str, text: str) -> None:
        """One line: a label of a word, and what is to be said."""
        if not self.quiet:
            print(f"{label:<10}{visible(hide_secrets(text))}", file=sys.stderr, flush=True)  # noqa: T201 - this is the one place

    @contextmanager
    def bar(self, label: str) -> Iterator[Bar]:
        """A progress bar for the duration of a `with` block."""
        if self.quiet:
            yield lambda *_: None
            return
        if not self._live:
            yield self._plain_bar(label)
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = TextColumn("{task.description:<9}"), BarColumn(BAR_WIDTH), TaskProgressColumn()
        with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=None, text="")

            def show(done: int, total: int | None, text: str) -> None:
                room = max(progress.console.width - BESIDE_TEXT, 8)
                lines = turns(visible(text), room)
                shown = lines[int(time.monotonic() / TURN_S) % len(lines)]
                progress.update(task, completed=done, total=total, text=escape(shown))

            yield show

    def _plain_bar(self, label: str) -> Bar:
        shown = time.monotonic()

        def show(done: int, total: int | None, text: str) -> None:
            nonlocal shown
            now = time.monotonic()
            if done == total or now - shown >= PLAIN_EVERY_S:
                shown = now
                self.line(label, text)

        return show
