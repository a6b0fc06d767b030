"""`retrain`: an architecture of the front trained alone, and tested."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli.context import reporter
from nas.cli.options import FormatOption, RunArgument, TeacherOption, WorkersOption
from nas.cli.output import flat_csv, print_result

retraining = typer.Typer()


class Origin(StrEnum):
    """Where a training starts."""

    SCRATCH = "scratch"
    INHERITED = "inherited"


@retraining.command()
def retrain(
    run: RunArgument,
    pick: Annotated[str, typer.Option(help="knee | top1 | fastest | cheapest | digest | architecture file.")],
    start: Annotated[
        Origin, typer.Option("--from", help="Start at random weights, or at those of the trained supernet.")
    ] = Origin.SCRATCH,
    seeds: Annotated[int, typer.Option(help="Trainings of each; two or more show what noise does.")] = 1,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training; default: as many as the supernet had.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Train the plain ViT of the space, too, the same way.")
    ] = True,
    teacher: TeacherOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="train.KEY=VALUE of the recipe; repeatable.")
    ] = None,
    workers: WorkersOption = None,
    to: Annotated[
        Path | None, typer.Option(help="Write the network that is best on the search split as a bundle here.")
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Train an architecture of the front alone, then test it, beside a baseline trained the same way.

    Takes long; every finished training is kept, and the same command goes on.
    """
    from nas.report import retrain_table, training_rows
    from nas.settings import check_retraining

    check_retraining(seeds, settings or ())
    from nas.jobs import Request, retrain

    found: dict[str, Any] = retrain(
        run,
        Request(
            pick=pick,
            start=start.value,
            seeds=seeds,
            epochs=epochs,
            teacher=teacher,
            settings=tuple(settings or ()),
            with_baseline=baseline,
        ),
        reporter(),
        workers=len(os.sched_getaffinity(0)) if workers is None else workers,
        directory=to,
    )
    print_result(format_, found, lambda: retrain_table(found), lambda: flat_csv(training_rows(found)))


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
    from nas.report import trust_table
    from nas.runs import check_counts

    check_counts(architectures, seeds)
    from nas.jobs import trust

    found: dict[str, Any] = trust(
        run,
        reporter(),
        architectures=architectures,
        seeds=seeds,
        epochs=epochs,
        workers=len(os.sched_getaffinity(0)) if workers is None else workers,
    )
    print_result(format_, found, lambda: trust_table(found), lambda: flat_csv(found["architectures"]))
