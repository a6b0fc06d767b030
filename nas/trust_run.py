"""`trust RUN`: the stand-alone trainings that are left, their records, and what they say of the supernet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.config import RunConfig
from nas.evaluation.evaluator import SubnetEvaluator
from nas.model.supernet import Supernet
from nas.pipeline import evaluator_setup, trained_supernet
from nas.progress import Reporter
from nas.session import Session, reopen, torch_threads
from nas.trained_alone import RECORD_VERSION, stand_alone_setup, trained_alone
from nas.training.data import sealed_test_split
from nas.trust import architecture_row, check_counts, choose, rank_statistics
from nas.trust_figure import trust_figure


def trust(
    path: Path, reporter: Reporter, *, architectures: int, seeds: int, epochs: int | None, workers: int
) -> dict[str, Any]:
    """How well a run's supernet ranks: inherited against stand-alone top-1. Writes `trust.json` and its figure.

    Every finished training is a record in the run's folder and is never done again, whatever is asked next.

    Args:
        path: The run.
        reporter: Tells people.
        architectures: To train, MACs-stratified; a larger number goes on with those of a smaller one.
        seeds: Trainings of each.
        epochs: Of a training; None: as many as the supernet had.
        workers: Ray actors of one thread each; 0: in this process.

    Returns:
        What `trust.json` holds: JSON values, explained in results/README.md.

    Raises:
        RunError: The supernet is not trained, or another process writes into the run.
        NoResultError: Fewer than four architectures were trained to their end.
        KeyboardInterrupt: Ctrl-C; the same command goes on.
    """
    check_counts(architectures, seeds)
    session = reopen(path, reporter)
    with session.run.lock():
        supernet = trained_supernet(session)
        setup = stand_alone_setup(session, epochs, session.run.trust_dir)
        chosen = choose(session.space, architectures, session.config.seed)
        if len(chosen) < architectures:
            reporter.line("space", f"{session.space.name} has no more than {len(chosen)} architectures")
        inherited = inherited_top1(session, setup.config, supernet, chosen, reporter)
        setups = [replace(setup, seed=setup.seed + i) for i in range(seeds)]
        records = trained_alone(setups, chosen, session.data, workers, reporter)
        failed = [record for record in records if record["error"] is not None]
        lost = {record["digest"] for record in failed}
        rows = []
        for architecture in chosen:
            if architecture.digest not in lost:
                alone = [r["top1"] for r in records if r["digest"] == architecture.digest]
                rows.append(
                    architecture_row(architecture, session.space, inherited[architecture.digest], alone)
                )
        conditions = evaluator_setup(session, {**session.run.manifest, "reference_ms": 1.0}).conditions(
            len(session.data.search), stage="search"
        )
        found = {
            "run": session.run.name,
            "num_architectures": len(rows),
            "num_seeds": seeds,
            "epochs": setup.config.train.epochs,
            "recipe": setup.recipe,
            "supernet": conditions.supernet,
            "split": conditions.split,
            "num_images": conditions.num_images,
            "precision": conditions.precision,
            "device": conditions.device,
            "torch": conditions.torch,
            **rank_statistics(rows, session.config.seed),
            "failed": [{key: record[key] for key in ("digest", "seed", "error")} for record in failed],
            "architectures": rows,
        }
        session.run.write_trust(found)
        trust_figure(found, session.run.figure_path("trust"))
    for record in failed:
        reporter.line("failed", f"{record['digest']}, seed {record['seed']}: {record['error']}")
    return {"schema_version": RECORD_VERSION, **found}


def inherited_top1(
    session: Session,
    config: RunConfig,
    supernet: Supernet,
    architectures: Sequence[Architecture],
    reporter: Reporter,
) -> dict[str, float]:
    """Top-1 in percent with the supernet's weights, measured as in the search, by digest."""
    setup = evaluator_setup(replace(session, config=config), {**session.run.manifest, "reference_ms": 1.0})
    evaluator = SubnetEvaluator(setup, supernet, session.data.search)
    found = {}
    with torch_threads(1), sealed_test_split(), reporter.bar("inherited") as bar:
        for i, architecture in enumerate(architectures, start=1):
            found[architecture.digest] = evaluator.evaluate(architecture).values["top1"]
            bar(i, len(architectures), f"{i}/{len(architectures)} architectures")
    return found
