"""A table of a command as a value that a terminal draws; rows as CSV."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.base import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

MOST_UNBROKEN = 28  # characters of a word that a column which wraps never breaks: names of models, digests, dates

Cell = str | float | None


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as CSV under these columns and all others that a row has; nested values as JSON."""
    text = io.StringIO()
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return text.getvalue()


class Markup(str):
    """A cell with styles of rich; all other texts are shown as they are, since they may come from anywhere."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of words, or with `form`, such as `{:.1f}`, of numbers, which stand on the right.

    Words go on in the next line where they are too long and the column `wraps`; nothing is ever cut. The header names
    the unit; the footer stands below the last row. Where there is no room, columns that are `spare` are left out, the
    greatest first.
    """

    header: str = ""
    form: str = ""
    wraps: bool = False
    footer: str = ""
    spare: int = 0

    def text(self, cell: Cell) -> str:
        """A cell in words: strings as they are, a dash where there is no value."""
        if isinstance(cell, str):
            return cell
        return "-" if cell is None or math.isnan(cell) else (self.form or "{}").format(cell)


def columns_of(forms: Mapping[str, str], *, wraps: bool = False) -> list[Column]:
    """Columns by header, each with the form of its cells."""
    return [Column(header, form, wraps) for header, form in forms.items()]


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a table stands on a terminal: which columns by place, with which headers and widths, how close."""

    places: tuple[int, ...]
    headers: tuple[str, ...]
    widths: tuple[int, ...]
    is_narrow: bool

    @property
    def width(self) -> int:
        """Columns of the terminal in all."""
        return sum(self.widths) + _between(len(self.places), is_narrow=self.is_narrow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headers with units; print it with rich, whose name of the frame is `box`.

    An empty row is a gap between sections. `caption` are lines below it, dim unless they are half of the answer. On a
    narrow terminal headers are broken between words, columns stand closer, those that are spare are left out, and at
    last the rows stand one below the other: numbers, units and headers stay whole.
    """

    title: str
    rows: Sequence[Sequence[Cell]]
    columns: Sequence[Column] = (Column(wraps=True), Column(wraps=True))
    caption: Sequence[str] = ()
    box: str = "SIMPLE_HEAD"
    dim: bool = True

    @property
    def width(self) -> int:
        """Columns of a terminal that it takes without any of these measures."""
        texts = self._texts()
        widths = [_width(column) for column in zip(*texts, strict=True)]
        return sum(widths) + _between(len(widths), is_narrow=False)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator[Any]:
        """Rich's protocol: what its console prints instead."""
        from rich.text import Text

        layout = self._layout(options.max_width)
        if layout is None:
            yield from self._stacked()
            left_out: list[str] = []
        else:
            is_inside = _width([visible(self.title)]) <= layout.width  # else it goes on beside the table
            if not is_inside:
                yield Text(visible(self.title), "italic")
            yield self._framed(layout, self.title if is_inside else "")
            left_out = [one_title(c.header) for i, c in enumerate(self.columns) if i not in layout.places]
        said = [f"no room here for: {', '.join(left_out)} (a wider terminal, or --format csv)"] if left_out else []
        for line in [*said, *self.caption]:
            yield Text(visible(line), "dim italic" if self.dim else "")

    def _texts(self) -> list[list[str]]:
        """Headers, footers, and rows without gaps: what is to be read, column by column."""
        columns = self.columns
        cells = [[c.text(cell) for c, cell in zip(columns, row, strict=True)] for row in self.rows if row]
        return [
            [_shown(text) for text in row] for row in ([c.header for c in columns], [c.footer for c in columns], *cells)
        ]

    def _layout(self, room: int) -> _Layout | None:
        """The widest layout that fits; None: not even one without all that is spare."""
        headers, *rows = self._texts()
        cells = [list(texts) for texts in zip(*rows, strict=True)]
        kept = tuple(range(len(self.columns)))
        natural = [max(_width(cells[i]), _width([headers[i]])) for i in kept]
        if sum(natural) + _between(len(kept), is_narrow=False) <= room:
            return _Layout(kept, tuple(headers), tuple(natural), is_narrow=False)
        least = [_least(column, cells[i]) for i, column in enumerate(self.columns)]
        least = [max(width, _longest_word(headers[i])) for i, width in enumerate(least)]
        for spare in [0, *sorted({c.spare for c in self.columns if c.spare}, reverse=True)]:
            kept = tuple(i for i in kept if not spare or self.columns[i].spare != spare)
            for is_narrow in (False, True):
                left = room - _between(len(kept), is_narrow=is_narrow) - sum(least[i] for i in kept)
                if left >= 0:
                    widths = _shared_out(left, {i: (least[i], natural[i]) for i in kept})
                    broken = tuple(_broken(headers[i], width) for i, width in zip(kept, widths, strict=True))
                    return _Layout(kept, broken, widths, is_narrow)
        return None

    def _framed(self, layout: _Layout, title: str) -> Any:
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable

        def plain(text: str) -> str:
            return text if isinstance(text, Markup) else escape(visible(text))

        columns = [replace(self.columns[i], header=h) for i, h in zip(layout.places, layout.headers, strict=True)]
        table = RichTable(
            title=plain(title) or None,
            box=getattr(box, self.box),
            show_header=any(column.header for column in columns),
            show_footer=any(column.footer for column in columns),
            padding=0 if layout.is_narrow else (0, 1),
            show_edge=not layout.is_narrow,
        )
        for column, width in zip(columns, layout.widths, strict=True):
            table.add_column(
                plain(column.header),
                plain(column.footer),
                justify="right" if column.form else "left",
                no_wrap=not column.wraps or bool(column.form),
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            if row:
                table.add_row(*(plain(c.text(row[i])) for i, c in zip(layout.places, columns, strict=True)))
            else:
                table.add_section()
        return table

    def _stacked(self) -> Iterator[Any]:
        """Each row as lines of header and cell."""
        from rich.text import Text

        yield Text(visible(self.title), "italic")
        heads = [one_title(column.header) for column in self.columns]
        for row in self.rows:
            yield Text()
            for head, column, cell in zip(heads, self.columns, row, strict=bool(row)):
                if text := _shown(column.text(cell)):
                    yield Text(f"{head}  {text}".strip())


def one_title(header: str) -> str:
    """A header in one line."""
    return " ".join(header.split())


def _shown(text: str) -> str:
    """What is seen of a text: without the styles of markup, escapes as words."""
    if isinstance(text, Markup):
        from rich.text import Text

        return Text.from_markup(text).plain
    return visible(text)


def _width(texts: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def _longest_word(text: str) -> int:
    return _width(text.split())


def _least(column: Column, cells: Sequence[str]) -> int:
    """Characters that a column needs: its numbers whole, of words that wrap the longest one, if that is no sentence."""
    if column.wraps and not column.form:
        return min(max(map(_longest_word, cells), default=0), MOST_UNBROKEN)
    return _width(cells)


def _between(count: int, *, is_narrow: bool) -> int:
    """Characters beside the cells of so many columns: blanks, and where they do not stand close, the frame."""
    return count - 1 if is_narrow else 3 * count + 1


def _shared_out(left: int, ends: Mapping[int, tuple[int, int]]) -> tuple[int, ...]:
    """Widths from the least to the natural one, of what is left an equal share for each that wants some."""
    widths = {i: least for i, (least, _) in ends.items()}
    while left > 0 and (wanting := [i for i, (_, natural) in ends.items() if widths[i] < natural]):
        for i in wanting[:left]:
            widths[i] += 1
        left -= len(wanting[:left])
    return tuple(widths.values())


def _broken(header: str, width: int) -> str:
    """A header in lines of at most that width, broken between words."""
    lines = header.split("\n")
    return "\n".join(
        textwrap.fill(line, max(width, 1), break_long_words=False, break_on_hyphens=False) for line in lines
    )
