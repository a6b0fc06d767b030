"""What the page of a run shows, as JSON values; costs and accuracies are in the units of their metrics."""

import math
import os
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.arch import FEWER_TOKENS, LOOKS, REDUCERS, Architecture, LayerChoice, draw_layers, look_of
from nas.base import (
    BALANCED,
    LATENCIES,
    LATENCY,
    MACS,
    METRICS,
    NAME,
    PARAMS,
    TOP1,
    Metric,
    RunError,
    duration,
    is_own_metric,
    plural,
    shared,
    shared_command,
    shared_word,
    unit_of,
)
from nas.report.architecture_table import show_rows
from nas.report.front_notes import front_notes
from nas.report.front_table import export_command, plain_lines, ratio_words, ties_within
from nas.report.verdict import chance_words, verdict_of
from nas.runs import (
    BASELINES,
    OWNER,
    PICKS,
    TRUST,
    FrontPoint,
    ParetoFront,
    RunDirectory,
    RunResults,
    design_points,
    log_rows,
    owner,
    plain_vits,
    random_search,
    retrained_networks,
    supernet_trials,
    whole,
)
from nas.settings import flat_config

COMMON_ERRORS = 5
LOSSES = {f"loss_{which}": f"{which} subnet" for which in ("largest", "smallest", "random")}
MOST_STEPS = 200  # of a training's course that are drawn: more than pixels are left to them on a phone
GREY = (150, 158, 168)


def report_data(found: RunResults, random: RunDirectory | None = None) -> dict[str, Any]:
    """What the page shows of a run, and of a random search beside it, which must be comparable (a RunError)."""
    run, front, trials = found.run, found.front, found.all_trials
    manifest, origin = run.manifest, _origins(found)
    rows = [_front_row(point, found) | origin(point) for point in front.points]
    cloud = _cloud(found, origin)
    verdict = verdict_of(found)
    judged = owner(run, front.knee())  # of several supernets `trust` is asked of one
    return {
        "run": run.name,
        "space": found.space.name,
        "summary": {"data": _data_words(found), "time": _time_words(found)},
        "losses": _losses(found),
        "is_final": run.front() is not None,
        "objectives": [objective.metric.name for objective in front.objectives],
        "up": {"metric": front.ranked_by.name, "is_more": front.ranked_by.direction == "maximize"},
        "own": list(_own_metrics(found)),
        "hypervolume": front.hypervolume(),
        "references": {o.metric.name: o.reference for o in front.objectives},
        "picks": _picks(front),
        "units": _units(found, rows, cloud),
        "genes": {name: words[:2] for name, words in GENES.items()}
        | ({"supernet": ("supernet", "number")} if found.has_supernets else {}),
        "kinds": {look.name: look.glyph for look in LOOKS},
        "colours": {
            "kinds": {look.name: look.colour for look in LOOKS},
            "reducers": {"none": GREY, **{reducer.name: reducer.colour for reducer in REDUCERS.values()}},
        },
        "fewer": FEWER_TOKENS,
        "counts": dict(Counter(trial.state.value for trial in trials)),
        "errors": Counter(shared(trial.error.splitlines()[0]) for trial in trials if trial.error).most_common(
            COMMON_ERRORS
        ),
        "front": rows,
        "cloud": cloud,
        "baselines": [{**found.values(p), "digest": p.digest, "name": n} for n, p in design_points(found).items()],
        "notes": front_notes(front, found.space)["notes"],
        "plain": _plain(found),
        "verdict": verdict["text"],
        "chance": chance_words(verdict["chance"], len(manifest.class_names)),
        "retrained": retrained_networks(found),
        "finalists": (run.front() or {}).get("finalists"),
        "targets": _targets(found, rows),
        "supernets": _supernets(found),
        "curve": found.curve,
        "random": None if random is None else _random(random, found),
        "conditions": {
            "front": front.points[0].measurement.conditions.to_dict(),
            "cloud": next((p.measurement.conditions.to_dict() for p in found.others), None),
        },
        "facts": _facts(run),
        "config": {key: _public(value) for key, value in flat_config(run.config()).items()},
        "command": shared_command(manifest.command),
        "trust": judged.findings().get(TRUST),
        "trust_baselines": BASELINES,
        "trust_command": shlex.join([NAME, "trust", _judged_folder(run, judged)]),
        "retrain_command": shared_command(
            shlex.join([NAME, "retrain", str(run.path), "--pick", "knee", "--seeds", "3"])
        ),
    }


def _mean(architecture: Architecture, value: Callable[[LayerChoice], float]) -> float:
    return sum(map(value, architecture.layers)) / architecture.depth


GENES: dict[str, tuple[str, str, Callable[[Architecture], float]]] = {
    "depth": ("depth", "layers", lambda a: a.depth),
    "embed_dim": ("width", "channels", lambda a: a.embed_dim),
    "mean_tokens": ("tokens", "mean", lambda a: _mean(a, lambda layer: layer.num_tokens)),
    "mean_heads": ("heads", "mean", lambda a: _mean(a, lambda layer: layer.num_heads)),
    "mean_mlp_ratio": ("MLP ratio", "mean", lambda a: _mean(a, lambda layer: layer.mlp_ratio)),
    "percent_dynamic": ("dynamic", "% layers", lambda a: _mean(a, lambda la: 100 * (look_of(la).name == "dynamic"))),
}
"""What an architecture is like in single numbers: words, unit, value."""


def genes(architecture: Architecture) -> dict[str, float]:
    """The values of `GENES`."""
    return {name: value(architecture) for name, (_, _, value) in GENES.items()}


def _origins(found: RunResults) -> Callable[[FrontPoint], dict[str, int | None]]:
    """Finds for a point the number of its trial within its supernet, and of that where there are several."""
    numbers = {(name, t.architecture.digest): t.number for name, of_one in found.trials.items() for t in of_one[::-1]}
    supernets = {trial.key: trial.number for trial in supernet_trials(found.run)}

    def origin(point: FrontPoint) -> dict[str, int | None]:
        folder = point.details.get(OWNER, "")
        return {"number": numbers.get((folder, point.digest)), "supernet": supernets.get(Path(folder).name)}

    return origin


def _front_row(point: FrontPoint, found: RunResults) -> dict[str, Any]:
    rows = show_rows(point, found.space.backbone)
    for row in rows:
        if row["layer"] is not None:
            layer = point.architecture.layers[row["layer"]]
            row |= {"kind": look_of(layer).name, "num_hallucinated": layer.num_hallucinated}
    return {
        **found.values(point),
        **genes(point.architecture),
        "digest": point.digest,
        "drawn": draw_layers(point.architecture),
        "rows": rows,
        "doubts": {
            name: {"noisy": timed.noisy, "ties": ties_within(timed.ties, found.front.points)}
            for name, timed in point.measurement.latency.items()
            if timed.noisy is not None
        },
        "export": shared_command(export_command(found.run.path, point.digest)),
        "show": shared_command(shlex.join([NAME, "show", str(found.run.path), point.digest])),
    }


def _cloud(found: RunResults, origin: Callable[[FrontPoint], dict[str, int | None]]) -> dict[str, list[Any]]:
    """Measured but not on the front, a column a quantity: thousands of them have to be small."""
    points = found.others
    values = [found.values(point) | genes(point.architecture) | origin(point) for point in points]
    further = (n for n in (BALANCED.name, *LATENCIES) if any(n in row for row in values))
    names = dict.fromkeys([*METRICS, *further, *_own_metrics(found), *GENES])
    return {
        **{name: [_rounded(row.get(name)) for row in values] for name in names},
        "digest": [point.digest for point in points],
        "drawn": [draw_layers(point.architecture) for point in points],
        **{name: [row[name] for row in values] for name in ("number", "supernet")[: 1 + found.has_supernets]},
    }


def _rounded(value: float | None) -> float | int | None:
    """To 5 digits: a thousandth of a pixel."""
    return None if value is None else whole(float(f"{value:.5g}"))


def _picks(front: ParetoFront) -> dict[str, str]:
    is_known = {m: not any(math.isnan(point.value(m)) for point in front.points) for m in PICKS.values() if m}
    return {name: front.pick(name).digest for name, metric in PICKS.items() if metric is None or is_known[metric]}


def _units(
    found: RunResults, rows: Sequence[Mapping[str, Any]], cloud: Mapping[str, Sequence[Any]]
) -> dict[str, dict[str, Any]]:
    """Divisor, words and decimals of each metric, the same everywhere on the page."""
    batch = found.front.points[0].measurement.conditions.latency_batch_size
    batches = {name: row["batch"] for name, row in found.front.targets.items()}
    units: dict[str, dict[str, Any]] = {}
    for metric in (*METRICS.values(), BALANCED, *list(LATENCIES.values())[1:], *_own_metrics(found).values()):
        known = [row[metric.name] for row in rows if row.get(metric.name) is not None]
        known += [value for value in cloud.get(metric.name, ()) if value is not None]
        if metric.name not in METRICS and not known:
            continue
        factor, prefix = unit_of(known) if metric in (MACS, PARAMS) else (1.0, "")
        words = {TOP1: "%", BALANCED: "%", MACS: f"{prefix}MACs/image", PARAMS: f"{prefix} parameters".strip()}
        words |= {own: own.unit for own in _own_metrics(found).values()}
        least = min((value / factor for value in known if value > 0), default=1.0)
        decimals = 1 if metric in (TOP1, BALANCED) else min(max(1 - math.floor(math.log10(least)), 0), 3)
        units[metric.name] = {
            "factor": factor,
            "unit": words.setdefault(metric, f"ms / {plural(batches.get(metric.name, batch), 'image')}"),
            "label": metric.label,
            "decimals": 0 if metric is PARAMS and factor == 1 else decimals,
            "axis": _axis(found.front.clocks.get(metric.name), words[metric]),
            "is_measured": bool(known),
        }
    return units


def _own_metrics(found: RunResults) -> dict[str, Metric]:
    """The objectives that are metrics of a Python program, by name."""
    return {o.metric.name: o.metric for o in found.front.objectives if is_own_metric(o.metric)}


def _axis(clock: float | None, words: str) -> dict[str, Any] | None:
    """Latency is drawn as the ratio to the reference model; nothing for what is drawn in its unit."""
    return None if clock is None else {"factor": clock, "unit": ratio_words(clock, words)}


def _targets(found: RunResults, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where latency was measured, a row a metric; once the front is final also how far it is known."""
    here = found.front.points[0].measurement.conditions
    words = {name: here.target if metric is LATENCY else metric.label for name, metric in LATENCIES.items()}
    return [
        {"target": words[name], **found.front.targets.get(name, {}), "metric": name}
        for name in LATENCIES
        if any(row.get(name) is not None for row in rows)
    ]


def _plain(found: RunResults) -> dict[str, Any]:
    """The line of the plain ViTs: what is drawn and tabled of each, and what the front gains over them, in words."""
    plain, on_front = plain_vits(found), {point.digest for point in found.front.points}
    rows = [
        {
            **found.values(point),
            "digest": point.digest,
            "drawn": draw_layers(point.architecture),
            "embed_dim": point.architecture.embed_dim,
            "depth": point.architecture.depth,
            "num_heads": point.architecture.layers[0].num_heads,
            "mlp_ratio": point.architecture.layers[0].mlp_ratio,
            **({"stem": point.architecture.stem} if found.space.has_stems else {}),
            "is_on_front": point.digest in on_front,
        }
        for point in plain.points
    ]
    return {"num_measured": plain.num_measured, "words": plain_lines(plain, found.front), "points": rows}


def _data_words(found: RunResults) -> str:
    manifest, backbone = found.run.manifest, found.space.backbone
    conditions = found.front.points[0].measurement.conditions
    spec = _public(flat_config(found.run.config()).get("data.spec")) or "images"
    return (
        f"{spec}: {plural(len(manifest.class_names), 'class', 'classes')}, {backbone.image_size} x "
        f"{backbone.image_size} pixels, {conditions.num_images:,} images of the {conditions.split} split chose"
    )


def _time_words(found: RunResults) -> str:
    created = found.run.manifest.created
    words = time.strftime("begun %Y-%m-%d %H:%M UTC", time.gmtime(created))
    ended = [trial.finished for trial in found.all_trials if trial.finished is not None]
    if not ended:
        return words
    first = min(trial.started for trial in found.all_trials)
    spent = f"{duration(first - created)} to the first trial, {duration(max(ended) - first)} of search"
    return f"{spent}, pauses counted; {words}"


def _losses(found: RunResults) -> list[tuple[str, list[tuple[float, float]]]]:
    """The course of the training, a name and pairs of step and loss a line; of several supernets a line each."""
    logs = {"": found.run.training_log} | {
        f"supernet {trial.number}, ": RunDirectory(found.run.supernets_dir / trial.key).training_log
        for trial in supernet_trials(found.run)
    }
    lines = []
    for owner_words, path in logs.items():
        rows = log_rows(path)
        size = -(-len(rows) // MOST_STEPS) or 1
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        for column, words in LOSSES.items() if not owner_words else [("loss_random", LOSSES["loss_random"])]:
            values = [[float(row[column]) for row in part if row.get(column)] for part in parts]
            pairs = [
                (float(part[0]["step"]), round(statistics.fmean(of_part), 4))
                for part, of_part in zip(parts, values, strict=True)
                if of_part and math.isfinite(sum(of_part))
            ]
            lines += [(owner_words + words, pairs)] if pairs else []
    return lines


def _supernets(found: RunResults) -> list[dict[str, Any]]:
    """The supernets of the run, a row each; empty where there is one only."""
    owners = Counter(Path(point.details.get(OWNER, "")).name for point in found.front.points)
    trials = {Path(name).name: of_one for name, of_one in found.trials.items()}
    return [
        {
            **{name: getattr(trial, name) for name in ("number", "key", "state", "score")},
            "parameters": dict(trial.parameters),
            "error": shared(trial.error),
            "num_trials": sum(each.is_paid for each in trials.get(trial.key, ())),
            "num_on_front": owners[trial.key],
        }
        for trial in supernet_trials(found.run)
    ]


def _random(random: RunDirectory, found: RunResults) -> dict[str, Any]:
    manifest = found.run.manifest
    if manifest.search is None:
        raise RunError(f"{found.run.path}: manifest.json does not say what is optimised")
    front, values = random_search(random, found.all_trials, manifest.search, manifest.constraints)
    return {**values, "points": [found.values(point) for point in front.by_clocks(found.front.clocks).points]}


def _facts(run: RunDirectory) -> list[tuple[str, str]]:
    """What the numbers rest on beside the conditions: (words, value)."""
    manifest, config = run.manifest, flat_config(run.config())
    facts: list[tuple[str, Any]] = [
        ("data", _public(config.get("data.spec"))),
        ("classes", len(manifest.class_names)),
        ("seed of splits, training and search", manifest.seed),
        ("sampler", config.get("search.sampler")),
        ("trials asked for", manifest.budget and manifest.budget.num_trials),
        ("training epochs", config.get("train.epochs")),
        ("device of the run", manifest.device),
        ("training threads", manifest.threads),
        ("space digest", manifest.space_digest),
        ("weights digest", manifest.supernet_digest),
        *((f"hash of the {name} split", digest) for name, digest in manifest.splits.items()),
        *((f"version of {name}", text) for name, text in manifest.versions.items()),
        ("started with", shared_command(manifest.command)),
    ]
    return [(words, str(value)) for words, value in facts if value is not None]


def _public(value: Any) -> Any:
    """A value of the configuration without where this machine keeps its files."""
    if isinstance(value, list | tuple):
        return [_public(each) for each in value]
    return shared_word(value) if isinstance(value, str) else value


def _judged_folder(run: RunDirectory, judged: RunDirectory) -> str:
    """A supernet's run within its run's folder, wherever that lies."""
    return str(Path(shared_word(str(run.path)), os.path.relpath(judged.path, run.path)))
