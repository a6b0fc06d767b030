"""Runs that were never searched: trials of real architectures with made-up accuracies and latencies."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np

from nas import cost
from nas.designs import known_designs
from nas.pareto import FrontPoint, ParetoFront
from nas.run_directory import RunDirectory
from nas.space_file import parse_space
from nas.trial import Trial, TrialState

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
            top1, float(macs), latency, float(params), latency_stage="search", **conditions
        )
        measured.intervals["top1"] = (top1 - 4, top1 + 4)
        if not with_latency:
            del measured.values["latency_ms"], measured.intervals["latency_ms"]
        trials.append(factories.trial(i, architecture, measurement=measured))
    return trials


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
    **manifest: Any,
) -> RunDirectory:
    """A run's folder with these trials; its final front has latencies 10 % off those of the trials."""
    about = factories.manifest(space_settings=[], class_names=[str(i) for i in range(10)], **manifest)
    about["objectives"] = [o for o in about["objectives"] if o["name"] in {x.metric.name for x in objectives}]
    run = RunDirectory.create(path, manifest=about, space_text=SPACE, config=config or {})
    lines = [
        json.dumps(trial.to_dict()) + "\n" for trial in trials
    ]  # append_trial waits for the disk each time
    (path / "trials.jsonl").write_text("".join(lines))
    if is_final:
        searched = ParetoFront.from_trials(trials, objectives)
        points = [FrontPoint(p.architecture, _again(p.measurement), _shares(p)) for p in searched.points]
        run.write_front(ParetoFront.from_points(points, objectives).to_dict(run.name))
    return run


def _again(measured):
    values = dict(measured.values)
    intervals = dict(measured.intervals)
    if "latency_ms" in values:
        values["latency_ms"] *= 0.9
        intervals["latency_ms"] = (values["latency_ms"] * 0.98, values["latency_ms"] * 1.02)
    conditions = replace(measured.conditions, latency_stage="exclusive")
    return replace(measured, values=values, intervals=intervals, conditions=conditions)


def _shares(point):
    depth = point.architecture.depth
    return {"layer_latency_share": [1 / depth] * depth}
