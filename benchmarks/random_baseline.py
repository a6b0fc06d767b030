"""Does the search find more than chance? A run's trials against as many random architectures, same supernet.

    python benchmarks/random_baseline.py results/cifar_small-1 [--draws 3]

Compared by top-1 on the search split and MACs (both exact for given weights), hypervolume of what each found.
"""

import argparse
from pathlib import Path

import numpy as np
from tables import write_table

from nas import cost
from nas.evaluation.accuracy import count_correct, top1_percent
from nas.metrics import MACS, TOP1, Objective
from nas.pareto import hypervolume
from nas.pipeline import trained_supernet
from nas.progress import Reporter
from nas.session import reopen
from nas.trial import TrialState


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--draws", type=int, default=3, help="independent random samples, half uniform half stratified"
    )
    arguments = parser.parse_args()
    session = reopen(arguments.run, Reporter())
    supernet = trained_supernet(session)
    objectives = [Objective(TOP1, 0.0), Objective(MACS, 1.1 * session.space.macs_range()[1])]
    trials = [t for t in session.run.trials() if t.state is TrialState.COMPLETE and t.measurement is not None]
    found = [(t.measurement.values["top1"], t.measurement.values["macs"]) for t in trials if t.measurement]
    rows = [row("search", len(found), found, objectives)]
    for draw in range(arguments.draws):
        for kind in ("uniform", "stratified"):
            rng = np.random.default_rng([draw, 99])
            sample = session.space.sample if kind == "uniform" else session.space.sample_stratified
            values = []
            with session.reporter.bar("random") as bar:
                for i in range(len(found)):
                    architecture = sample(rng)
                    correct = count_correct(
                        supernet.extract(architecture),
                        session.data.search,
                        batch_size=session.config.evaluate.batch_size,
                        device=session.device,
                        precision=session.precision,
                    )
                    values.append(
                        (top1_percent(correct), float(cost.macs(architecture, session.space.backbone)))
                    )
                    bar(i + 1, len(found), f"{kind} draw {draw}: {i + 1}/{len(found)}")
            rows.append(row(f"random, {kind}, draw {draw}", len(values), values, objectives))
    write_table(
        f"random_baseline_{session.space.name}",
        rows,
        f"{session.run.name}: top-1 on {len(session.data.search)} search images and MACs; "
        f"hypervolume is the share of the box from (0 %, {objectives[1].reference:.4g} MACs) to (100 %, 0)",
    )


def row(
    name: str, count: int, values: list[tuple[float, float]], objectives: list[Objective]
) -> dict[str, object]:
    """One line of the table."""
    return {
        "architectures": name,
        "measured": count,
        "hypervolume": round(hypervolume(np.array(values), objectives), 4),
        "best_top1": round(max(top1 for top1, _ in values), 2),
    }


if __name__ == "__main__":
    main()
