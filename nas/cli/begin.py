"""`init`: from images to a search space and a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import DataOption, FormatOption, example
from nas.cli.output import begin, print_result, reporter

first = typer.Typer()


@first.command(epilog=example("init --data folder:photos --to photos.yaml"))
def init(
    data: DataOption = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="A new file, such as photos.yaml, beside which photos.config.yaml is written; or a folder. "
            "Default: this folder, under the name of the data."
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Never start from trained weights, which timm downloads.")
    ] = False,
    forecast: Annotated[
        bool, typer.Option("--forecast", help="Rehearse the run, as --dry-run does, to say how long all of it takes.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value of the configuration; repeatable.")
    ] = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave unreadable images out instead of stopping.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Look at images; write a space and a configuration for them that say why, and the command that runs them.

    Files are never overwritten.
    """
    begin(has_run=False)
    from nas.jobs import propose
    from nas.report import proposal_table

    given = [*(settings or ()), *(["data.skip_bad_images=true"] if skip_bad_images else [])]
    values = propose(data or "digits", to, given, reporter(), from_scratch=from_scratch, with_forecast=forecast)
    for warning in values["warnings"]:
        reporter().line("warning", warning)
    print_result(format_, values, proposal_table, values["choices"])
    reporter().line("next", values["command"])
