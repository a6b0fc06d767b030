"""Runs that were never searched: trials of real architectures with made-up accuracies and latencies."""

import functools
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
from rich.console import Console

from nas.arch import cost
from nas.base.metrics import by_target
from nas.report.page.data import report_data
from nas.report.page.file import write_report
from nas.runs.directory import RunDirectory
from nas.runs.front import ParetoFront
from nas.runs.manifest import SupernetTrial
from nas.runs.point import FrontPoint
from nas.runs.ranking import architecture_row, rank_statistics
from nas.runs.results import network_row, results_of
from nas.runs.supernets import union_points
from nas.runs.trial import Trial, TrialState
from nas.space.designs import known_designs
from nas.space.space import parse_space

SPACE = """
name: page
backbone: {image_size: 16, patch_size: 4, num_classes: auto, head_dim: 8}
embed_dim: [16, 24, 32]
depth: [3, 4]
layers:
  num_tokens: [16, 9, 4]
  reducer: [pool, glad]
  attention: [dynamic, static, shared]
  num_heads: [1, 2, 3]
  mlp_ratio: [1, 2, 3]
"""


LATENCY_ROWS = [
    {
        "target": target,
        "runtime": runtime,
        "batch": batch,
        "threads": threads,
        "precision": "fp32",
        "torch": "2.8.0",
        "reference_ms": 6.5,
        "reference_slow_ms": 7.25,
        "repeat_tau": tau,
        "cores": [0],
        "machine": {name: {"load_average": [0.5, 0.4], "cpu_mhz": None, "cores": 2} for name in ("before", "after")},
    }
    for target, runtime, batch, threads, tau in (
        ("torch-cpu:batch=64", "torch-cpu", 64, 1, 0.93),
        ("onnxruntime-cpu:batch=1,threads=2", "onnxruntime-cpu 1.20", 1, 2, None),
    )
]


def text_of(table: Any, width: int = 120) -> str:
    """What a terminal of that width shows."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def row_with(text: str, word: str) -> str:
    """The only line that holds a word."""
    found = [line for line in text.splitlines() if word in line]
    assert len(found) == 1, text
    return found[0]


@functools.cache
def page_space():
    return parse_space(SPACE, "page.yaml").with_num_classes(10)


def made_trials(count: int, *, with_latency: bool = True, seed: int = 0, **conditions: Any) -> list[Trial]:
    """Distinct architectures, the known designs and the largest first; accuracy rises with MACs, with noise."""
    space, rng = page_space(), np.random.default_rng(seed)
    found = {a.digest: a for a in [space.largest(), *known_designs(space, space.seeds).values()][:count]}
    while len(found) < count:
        architecture = space.sample(rng)
        found[architecture.digest] = architecture
    trials = []
    for i, architecture in enumerate(found.values()):
        macs, params = cost.macs(architecture, space.backbone), cost.params(architecture, space.backbone)
        top1 = round(30 + 12 * np.log10(macs) * rng.uniform(0.6, 0.9), 3)
        latency = float(1 + macs / 5e4 * rng.uniform(0.7, 1.3))
        measured = factories.measurement(
            top1, float(macs), latency if with_latency else None, float(params), latency_stage="search", **conditions
        )
        measured = replace(measured, top1_interval=(top1 - 4, top1 + 4))
        trials.append(factories.trial(i, architecture, measurement=measured))
    return trials


COUNT = 60
"""Trials of the run that tests share, but for three more that failed."""


def page_data(run: RunDirectory, random: Any = None) -> Any:
    """What the page of a run shows."""
    return report_data(results_of(run), random)


def lost_trials(count: int, first: int, error: str = "out of memory") -> list[Trial]:
    """Failed trials."""
    space, rng = page_space(), np.random.default_rng(99)
    changes = {"state": TrialState.FAILED, "measurement": None, "error": error}
    return [factories.trial(first + i, space.sample(rng), **changes) for i in range(count)]


def make_run(
    path: Path,
    trials: list[Trial],
    *,
    is_final: bool = True,
    objectives: tuple[Any, ...] = factories.OBJECTIVES,
    config: dict[str, Any] | None = None,
    targets: int = 0,
    reference_digest: str = "0" * 12,
    **manifest: Any,
) -> RunDirectory:
    """A run's folder with these trials; its final front has latencies 10 % off those of the trials.

    Of so many targets: the first latency is noisy at every third point, and tied with the point before it.
    """
    identity = factories.search_identity(objectives=objectives, reference_digest=reference_digest)
    about = factories.manifest(search=identity, **manifest)
    run = RunDirectory.create(path, manifest=about, space_text=SPACE, config=config or {})
    lines = [json.dumps(trial.to_dict()) + "\n" for trial in trials]  # append_trial waits for the disk each time
    (path / "trials.jsonl").write_text("".join(lines))
    if is_final:
        searched = ParetoFront.from_trials(trials, objectives)
        points = [FrontPoint(p.architecture, _again(p.measurement), _shares(p)) for p in searched.points]
        front = ParetoFront.from_points(points, objectives)
        points = tuple(_doubted(front.points, targets)) if targets else front.points
        clocks = {} if targets else identity.reference_clocks
        run.write_front(ParetoFront(objectives, points, by_target(LATENCY_ROWS[:targets]), clocks).to_dict(run.name))
    return run


def _doubted(points: tuple[FrontPoint, ...], targets: int) -> list[FrontPoint]:
    found = []
    for i, point in enumerate(points):
        partner = i + (1, -1, len(points))[i % 3]
        ties = (points[partner].digest,) if partner < len(points) else ()
        first = point.measurement.latency["latency_ms"]
        latency = {"latency_ms": replace(first, noisy=i % 3 == 2, ties=ties, rounds=15)}
        if targets > 1:
            about = {"noisy": False, "target": LATENCY_ROWS[1]["target"], "is_searched": False}
            latency["latency_ms_2"] = factories.timed(0.2 * first.ms, **about)
        found.append(replace(point, measurement=replace(point.measurement, latency=latency)))
    return found


def retrained(run: RunDirectory) -> RunDirectory:
    """With what `retrain` finds of the knee and of the plain ViT."""
    space = page_space()
    knee = ParetoFront.from_run(run.path).knee().architecture
    (plain,) = known_designs(space, ["deit"]).values()
    start = {"top1": 70.0, "test_top1": 68.5}
    rows = [
        network_row(
            name,
            {
                "digest": architecture.digest,
                "macs": cost.macs(architecture, space.backbone),
                "params": cost.params(architecture, space.backbone),
                "from": "scratch",
            },
            {key: top1 + 3 * i for key, top1 in start.items()},
            [{"seed": seed, **{key: top1 + 8 + 2 * seed + i for key, top1 in start.items()}} for seed in (0, 1)],
        )
        for i, (name, architecture) in enumerate((("knee", knee), ("plain ViT", plain)))
    ]
    counts = {"num_seeds": 2, "epochs": 30, "search_images": 287, "test_images": 359}
    found = {"from": "scratch", "picked": rows[0], "baselines": rows[1:], "supernet": "0123456789ab", **counts}
    run.write_retrain(knee.digest, found)
    return run


def training_log(run: RunDirectory, steps: int) -> None:
    """A log: the loss of the largest subnet is the step, the smallest is one above, the random one is lost halfway."""
    run.supernet_dir.mkdir()
    lines = [f"{i},{steps},{i},{i + 1},{i if i <= steps / 2 else 'nan'}" for i in range(1, steps + 1)]
    run.training_log.write_text("\n".join(["step,steps,loss_largest,loss_smallest,loss_random", *lines]) + "\n")


def trusted(run: RunDirectory, count: int = 12) -> RunDirectory:
    """With what `trust` finds of some architectures, two seeds each."""
    space, rng = page_space(), np.random.default_rng(3)
    rows = []
    for architecture in (trial.architecture for trial in made_trials(count, seed=3)):
        inherited = 20 + 8 * float(np.log10(cost.macs(architecture, space.backbone))) + rng.normal(0, 2)
        rows.append(architecture_row(architecture, space, inherited, (inherited + 10 + rng.normal(0, 2, 2)).tolist()))
    about = {"num_seeds": 2, "epochs": 30, "supernet": "0123456789ab", "split": "search", "num_images": 287}
    more = {"num_architectures": len(rows), "precision": "fp32", "failed": [], "architectures": rows}
    run.write_trust({"run": run.name, **about, **more, **rank_statistics(rows)})
    return run


def trust_found(*accuracies, failed=()) -> dict[str, Any]:
    """What `trust` finds of these accuracies, inherited and by seed."""
    return {
        "run": "digits-1",
        "num_architectures": len(accuracies[0]),
        "num_seeds": len(accuracies) - 1,
        "epochs": 30,
        "supernet": "0123456789ab",
        "split": "search",
        "num_images": 287,
        "precision": "fp32",
        **rank_statistics(factories.rank_rows(*accuracies)),
        "failed": list(failed),
        "architectures": factories.rank_rows(*accuracies),
    }


def supernets_run(path: Path, count: int = 30) -> RunDirectory:
    """A run over two supernets that were searched and one that failed."""
    run = make_run(path, [], is_final=False)
    (path / "trials.jsonl").unlink()
    fronts = {}
    for number, state in enumerate(("complete", "complete", "failed")):
        error = "loss is not finite" if state == "failed" else None
        trial = SupernetTrial(
            number=number, parameters={"train.lr": 0.001 * (number + 1)}, state=state, scores={10: 0.4}, error=error
        )
        trials = [] if error else made_trials(count, seed=number, supernet=f"{number}" * 12)
        searched = make_run(run.supernets_dir / trial.key, trials, is_final=state == "complete")
        searched.update_manifest(supernet_trial=trial)
        if state == "complete":
            fronts[f"supernets/{trial.key}"] = ParetoFront.from_run(searched.path).points
    front = ParetoFront.from_points(union_points(fronts), factories.OBJECTIVES)
    run.write_front(front.to_dict(run.name))
    return run


def _again(measured):
    latency = {name: factories.timed(0.9 * timed.ms) for name, timed in measured.latency.items()}
    conditions = replace(measured.conditions, latency_stage="exclusive")
    return replace(measured, latency=latency, conditions=conditions)


def _shares(point):
    depth = point.architecture.depth
    return {"layer_latency_share": [1 / depth] * depth}


def page_run(path: Path) -> RunDirectory:
    """A run with its report, and two trials that failed."""
    trials = [*made_trials(80), *lost_trials(2, 80)]
    made = make_run(path, trials, reference_digest=page_space().largest().digest, command="x y")
    write_report(made)
    return made
