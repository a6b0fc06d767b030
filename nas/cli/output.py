"""Results on standard output, in the format that was asked for, and what people are told beside them."""

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.base import Reporter, RunError, command_line, program_name, rename_program, visible
from nas.cli.options import Format

if TYPE_CHECKING:
    from nas.runs import RunDirectory

WORKING, WATCH_EVERY_S = ("training", "searching", "measuring"), 2.0
OF_BUNDLE = ("spec", "stored_size")  # keys of the data that are an option, or the bundle's own
PIPED_WIDTH = 160  # columns of a table that is written to a file


@dataclass(slots=True)
class _Common:
    """What every command knows: how loud to be, whether to show tracebacks, what Ctrl-C leaves behind now."""

    quiet: bool = False
    debug: bool = False
    interrupted: str = ""


COMMON = _Common()


NOTHING_YET, RESUMABLE = "nothing was written yet. Again:", "what is finished is kept. Resume:"


def begin(*, has_run: bool) -> None:
    """Say at once that a command has begun, as torch takes seconds to import, and what Ctrl-C leaves from here on."""
    COMMON.interrupted = RESUMABLE if has_run else NOTHING_YET
    if "torch" not in sys.modules:
        reporter().line("start", "PyTorch is being loaded, a few seconds")


def reporter() -> Reporter:
    """What tells people how a command goes on, as loud as they want it."""
    return Reporter(quiet=COMMON.quiet)


def show_front(path: Path, found: Any, format_: Format | None, *, whole: Any = None) -> None:
    """Print a run's front, or the part of it that a filter left; on a terminal with small plots."""
    from nas.report import chance_words, export_command, front_csv, front_notes, front_table, verdict_of
    from nas.runs import RunDirectory, plain_vits, results_of, space_of_run

    run, whole = RunDirectory.open(path), whole or found
    try:
        results = results_of(run, whole) if whole.points else None
    except RunError:  # the front can be read where its trials cannot; `tell_doubts` says so
        results = None
    plain_ones = plain_vits(results) if results else None
    verdict = verdict_of(results) if results else None
    commands = [rename_program(run.manifest.command, program_name()), export_command(path, "DIGEST")]

    def picture(_: Any) -> Any:
        from rich.columns import Columns
        from rich.console import Group
        from rich.text import Text

        from nas.report import front_plots, plain_table

        table = front_table(found, whole=whole)
        if not found.points or results is None or plain_ones is None or verdict is None:
            return table
        plots = front_plots(found, results.others, whole)
        tables = [table, *([plain_table(plain_ones, whole)] if plain_ones.points else [])]
        legend = "● front   ★ knee   □ plain ViT   · not on it, or not shown"
        again = [Text(visible(f"$ {command}"), no_wrap=True, overflow="ignore") for command in commands]
        words = [
            line for line in (verdict["text"], chance_words(verdict["chance"], len(run.manifest.class_names))) if line
        ]
        told = [Text(f"{line[0].upper()}{line[1:]}.", "bold") for line in words]
        return Group(
            *tables, *told, Columns([Text(plot) for plot in plots], padding=(0, 3)), Text(legend, "dim"), *again
        )

    told = front_notes(whole, space_of_run(run))
    for note in told["notes"]:
        reporter().line("note", note)
    plain_values = {} if plain_ones is None else {"plain": plain_ones.to_dict(), "verdict": verdict}
    values = {**found.to_dict(run.name), **plain_values, **told, "commands": commands}
    print_result(format_, values, picture, front_csv(found, path))


def watch_status(run: "RunDirectory") -> None:
    """Show how a run stands until no process works on it: redrawn on a terminal, else a line where it changed."""
    from rich.console import Console
    from rich.live import Live

    from nas.report import status_dict, status_line, status_table

    shown = ""
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while (values := status_dict(run))["state"] in WORKING:
            live.update(status_table(values), refresh=True) if sys.stderr.isatty() else None
            if not sys.stderr.isatty() and (line := status_line(values)) != shown:
                shown = line
                reporter().line("status", line)
            time.sleep(WATCH_EVERY_S)


def tell_doubts(path: Path) -> None:
    """Say on stderr what is missing in a run's folder, so that its numbers are of a part of it."""
    from nas.runs import RunDirectory, doubts_of

    for doubt in doubts_of(RunDirectory.open(path)):
        reporter().line("warning", doubt)


def next_step(command: str) -> None:
    """Say what may be typed next."""
    reporter().line("next", command)


def free_folder(name: str) -> str:
    """The name, or with the first number from 2 on under which nothing lies in this folder."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return name if not Path(name).exists() else next(one for one in numbered if not Path(one).exists())


def next_validate(bundle: Path, run: Path, data: str | None) -> None:
    """Say how the number on a bundle's card is had from its files; `data` is where the images of its run are now."""
    from nas.runs import RunDirectory, config_of_run
    from nas.settings import DataConfig, is_own

    settings = config_of_run(RunDirectory.open(run)).data
    spec, usual = data or settings.spec, DataConfig().model_dump()
    changed = {key: value for key, value in settings.model_dump(mode="json").items() if value != usual[key]}
    words = [
        word for key, value in changed.items() if key not in OF_BUNDLE for word in ("--set", f"data.{key}={value}")
    ]
    if not is_own(spec):
        next_step(command_line("validate", bundle, "--data", spec, *words))


def print_result(
    format_: Format | None, values: Any, table: Callable[[Any], Any], rows: Sequence[Mapping[str, Any]] | str
) -> None:
    """Print a result on standard output: a table, unless JSON or CSV was asked for.

    `values` is the result, of which `table` makes what rich prints; `rows` is it as rows of CSV, or as its text.
    """
    if format_ is Format.JSON:
        print(json.dumps(values, indent=2, allow_nan=False))  # noqa: T201
    elif format_ is Format.CSV:
        from nas.report import csv_text

        text = rows if isinstance(rows, str) else csv_text(rows)
        print(visible(text) if sys.stdout.isatty() else text, end="")  # noqa: T201
    else:
        # A command longer than a line is to be copied whole; what is no terminal breaks no sentence either.
        _console().print(table(values), crop=False, soft_wrap=not sys.stdout.isatty())


def fits(table: Any) -> bool:
    """Whether a table is printed without any measure against a narrow terminal."""
    return bool(table.width <= _console().width)


def plain(text: str) -> Any:
    """Lines as they are: neither wrapped nor coloured, so that they can be copied."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text(visible(text), no_wrap=True, overflow="ignore"))  # a text by itself is wrapped whatever it says


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
