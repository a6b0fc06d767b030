"""A table of a command as a value that a terminal draws; rows as CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas.base import visible

if TYPE_CHECKING:
    from rich.table import Table as RichTable

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

    Words that are too long for the terminal go on in the next line where it `wraps`, else they are cut. The header
    names the unit; the footer stands below the last row.
    """

    header: str = ""
    form: str = ""
    wraps: bool = False
    footer: str = ""

    def text(self, cell: Cell) -> str:
        """A cell in words: strings as they are, a dash where there is no value."""
        if isinstance(cell, str):
            return cell
        return "-" if cell is None or math.isnan(cell) else (self.form or "{}").format(cell)


def columns_of(forms: Mapping[str, str], *, wraps: bool = False) -> list[Column]:
    """Columns by header, each with the form of its cells."""
    return [Column(header, form, wraps) for header, form in forms.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headers with units; print it with rich, whose name of the frame is `box`.

    An empty row is a gap between sections. `caption` are lines below it, `look` more keywords of rich's table.
    """

    title: str
    rows: Sequence[Sequence[Cell]]
    columns: Sequence[Column] = (Column(wraps=True), Column(wraps=True))
    caption: Sequence[str] = ()
    box: str = "SIMPLE_HEAD"
    look: Mapping[str, Any] = field(default_factory=dict)

    def __rich__(self) -> "RichTable":
        """Rich's protocol: what its console prints, or measures, instead."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable

        def plain(text: str) -> str:
            return text if isinstance(text, Markup) else escape(visible(text))

        table = RichTable(
            title=plain(self.title),
            caption=plain("\n".join(self.caption)) or None,
            box=getattr(box, self.box),
            show_header=any(column.header for column in self.columns),
            show_footer=any(column.footer for column in self.columns),
            **{"caption_justify": "left", **self.look},
        )
        for column in self.columns:
            table.add_column(
                plain(column.header),
                plain(column.footer),
                justify="right" if column.form else "left",
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps and not column.form else "ellipsis",
            )
        for row in self.rows:
            if row:
                table.add_row(*(plain(c.text(cell)) for c, cell in zip(self.columns, row, strict=True)))
            else:
                table.add_section()
        return table
