"""Results on standard output, in the format that was asked for."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.cli_options import Format


def show_front(path: Path, found: Any, format_: Format | None, *, whole: Any = None) -> None:
    """Print a run's front, or the part of it that a filter left."""
    from nas.report import front_csv, front_table
    from nas.run_directory import RunDirectory

    name = RunDirectory.open(path).name
    print_result(
        format_, found.to_dict(name), lambda: front_table(found, whole=whole), lambda: front_csv(found)
    )


def print_result(
    format_: Format | None, values: Any, table: Callable[[], Any], csv_text: Callable[[], str]
) -> None:
    """Print a result on standard output: a table on a terminal, else JSON, or what was asked for."""
    chosen = format_ or (Format.TABLE if sys.stdout.isatty() else Format.JSON)
    if chosen is Format.JSON:
        print(json.dumps(values, indent=2, allow_nan=False))  # noqa: T201
    elif chosen is Format.CSV:
        print(csv_text(), end="")  # noqa: T201
    else:
        from rich.console import Console

        width = None if sys.stdout.isatty() else 160
        Console(width=width).print(table())


def flat_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; nested values as JSON."""
    import csv
    import io

    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()})
    return text.getvalue()
