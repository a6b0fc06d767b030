"""`trust`: whether a run's supernet ranks architectures as training them alone would."""

import os
from typing import Annotated, Any

import typer

from nas.cli_options import FormatOption, RunArgument, WorkersOption
from nas.cli_output import flat_csv, print_result

trusting = typer.Typer()


@trusting.command()
def trust(
    run: RunArgument,
    architectures: Annotated[
        int, typer.Option(help="Architectures to train alone, at least 4; more go on with these.")
    ] = 24,
    seeds: Annotated[int, typer.Option(help="Trainings of each; two or more show what noise does.")] = 2,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training; default: as many as the supernet had.")
    ] = None,
    workers: WorkersOption = None,
    format_: FormatOption = None,
) -> None:
    """Does the supernet rank right? Rank correlation of inherited and stand-alone accuracy, with intervals.

    Trains architectures alone, which takes long; every finished training is kept, and the same command goes on.
    """
    from nas.trust import check_counts, trust_table

    check_counts(architectures, seeds)
    from nas.cli import COMMON
    from nas.progress import Reporter
    from nas.trust_run import trust

    found: dict[str, Any] = trust(
        run,
        Reporter(quiet=COMMON.quiet),
        architectures=architectures,
        seeds=seeds,
        epochs=epochs,
        workers=len(os.sched_getaffinity(0)) if workers is None else workers,
    )
    print_result(format_, found, lambda: trust_table(found), lambda: flat_csv(found["architectures"]))
