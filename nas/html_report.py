"""`report.html`: a run as one page that needs no network. Its data is JSON, drawn by the scripts in `report_page/`."""

import html
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from nas.architecture import Backbone
from nas.config import flat_config
from nas.designs import known_designs
from nas.errors import RunError
from nas.figure import front_figure
from nas.metrics import LATENCY, MACS, METRICS, PARAMS, TOP1, Objective
from nas.pareto import FrontPoint, ParetoFront, hypervolume
from nas.report import FEWER_TOKENS, GLYPHS, draw_layers, layer_kind, show_rows, unit_of
from nas.run_directory import RunDirectory, atomic_write_text
from nas.space import SearchSpace
from nas.space_file import space_of_run
from nas.supernet_runs import OWNER, all_trial_records, front_of
from nas.trial import Trial, TrialState

SCRIPTS = ("draw.js", "charts.js", "layers.js", "page.js")
CURVE_POINTS = 200
COMMON_ERRORS = 5
PAID = (TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED)


def write_report(run: RunDirectory, random: RunDirectory | None = None) -> list[Path]:
    """Write `report.html` and the figures of a run that has measured something, finished or not.

    Args:
        run: What is shown.
        random: A random search on the same weights and images, drawn on the page up to the same number of trials.

    Returns:
        The files, the page first.

    Raises:
        RunError: Nothing was measured yet, the run is damaged, or `random` cannot be compared with it.
    """
    atomic_write_text(run.report_path, report_html(report_data(run, random)))
    front, trials = front_of(run.path), _all_trials(run)
    measured = {**_whole_points(trials), **{point.digest: point for point in front.points}}
    baselines = _known_designs(space_of_run(run), run.manifest)
    named = {name: measured[digest] for digest, name in baselines.items() if digest in measured}
    return [run.report_path, *front_figure(front, trials, run.figure_path(), named)]


def report_html(data: Mapping[str, Any]) -> str:
    """The page around its data (`report_data`); no text of a run can end the script that holds it."""
    folder = resources.files("nas") / "report_page"
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS)}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "title": html.escape(f"{data['run']}: Pareto front"),
        "style": files["page.css"],
        "script": "\n".join(files[name] for name in SCRIPTS),
        "data": text,
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)  # one pass: data is not searched


def report_data(run: RunDirectory, random: RunDirectory | None = None) -> dict[str, Any]:
    """What the page shows, JSON values; costs and accuracies are in the units of `METRICS`.

    Args:
        run: What is shown.
        random: A random search to show beside it.

    Raises:
        RunError: As `write_report`.
    """
    front, manifest, space = front_of(run.path), run.manifest, space_of_run(run)
    if not front.points:
        raise RunError(f"{run.path}: nothing was measured yet", hint="search.py status shows how far it is")
    trials = _all_trials(run)
    on_front = {point.digest for point in front.points}
    whole = _whole_points(trials)
    cloud = {digest: point for digest, point in whole.items() if digest not in on_front}
    is_union = any(OWNER in point.details for point in front.points)  # of searches that each count from 0
    numbers = {} if is_union else {trial.architecture.digest: trial.number for trial in reversed(trials)}
    shown = [*front.points, *cloud.values()]
    constraints = manifest.get("constraints", {})
    return {
        "run": run.name,
        "space": space.name,
        "is_final": run.front() is not None,
        "objectives": [objective.metric.name for objective in front.objectives],
        "hypervolume": front.hypervolume(),
        "references": {o.metric.name: o.reference for o in front.objectives},
        "picks": _picks(front),
        "units": _units(shown),
        "kinds": GLYPHS,
        "fewer": FEWER_TOKENS,
        "counts": dict(Counter(trial.state.value for trial in trials)),
        "errors": _common_errors(trials),
        "front": [
            _front_row(point, numbers.get(point.digest), space.backbone, run.path) for point in front.points
        ],
        "cloud": _cloud(list(cloud.values()), numbers),
        "baselines": _baselines(space, manifest, {**whole, **{p.digest: p for p in front.points}}),
        "curve": hypervolume_curve(trials, front.objectives, constraints),
        "random": None if random is None else _random_search(random, trials, front.objectives, constraints),
        "conditions": {
            "front": front.points[0].measurement.conditions.to_dict(),
            "cloud": next((p.measurement.conditions.to_dict() for p in cloud.values()), None),
        },
        "facts": _facts(run, manifest),
        "config": flat_config(run.config()),
        "command": manifest.get("command"),
        "findings": run.findings(),
        "trust_command": f"python search.py trust {shlex.quote(str(run.path))}",
    }


def hypervolume_curve(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    constraints: Mapping[str, float | None] | None = None,
) -> list[tuple[int, float]]:
    """(trials paid for, hypervolume of all measured until then), in the order in which trials ended.

    Args:
        trials: Those that have not ended count nothing, repeats cost nothing.
        objectives: With the reference of the hypervolume.
        constraints: Metric name -> highest value that counts; None is no bound.
    """
    rows: list[list[float]] = []
    curve: list[tuple[int, int]] = []
    paid = 0
    for trial in _ended(trials):
        paid += trial.state in PAID
        if trial.measurement is not None and trial.is_whole:
            values = trial.measurement.values
            kept = all(
                values.get(name, math.inf) <= bound
                for name, bound in (constraints or {}).items()
                if bound is not None
            )
            if kept:
                rows.append([values.get(o.metric.name, math.nan) for o in objectives])
        if curve and curve[-1][0] == paid:
            curve[-1] = (paid, len(rows))
        else:
            curve.append((paid, len(rows)))
    step = max(1, math.ceil(len(curve) / CURVE_POINTS))
    chosen = sorted({*range(0, len(curve), step), len(curve) - 1} - {-1})
    return [(curve[i][0], hypervolume(rows[: curve[i][1]], objectives)) for i in chosen]


def _all_trials(run: RunDirectory) -> list[Trial]:
    return [Trial.from_dict(record) for record in all_trial_records(run)]


def _ended(trials: Iterable[Trial]) -> list[Trial]:
    return sorted((t for t in trials if t.finished is not None), key=lambda trial: trial.finished or 0.0)


def _whole_points(trials: Iterable[Trial]) -> dict[str, FrontPoint]:
    found: dict[str, FrontPoint] = {}
    for trial in trials:
        if trial.measurement is not None and trial.is_whole:
            found.setdefault(trial.architecture.digest, FrontPoint(trial.architecture, trial.measurement))
    return found


def _values(point: FrontPoint) -> dict[str, Any]:
    """Values and intervals of a point; null where something was not measured."""
    finite = {name: point.value(metric) for name, metric in METRICS.items()}
    values: dict[str, Any] = {name: None if math.isnan(v) else v for name, v in finite.items()}
    for metric in (TOP1, LATENCY):
        interval = point.measurement.intervals.get(metric.name)
        values[f"{metric.name}_ci"] = None if interval is None else list(interval)
    return values


def _front_row(point: FrontPoint, number: int | None, backbone: Backbone, path: Path) -> dict[str, Any]:
    architecture, where = point.architecture, shlex.quote(str(path))
    rows = show_rows(point, backbone)
    for row in rows:
        if row["layer"] is not None:
            row["kind"] = layer_kind(architecture, row["layer"])
            row["num_hallucinated"] = architecture.layers[row["layer"]].num_hallucinated
    return {
        **_values(point),
        "digest": point.digest,
        "number": number,
        "supernet": point.details.get(OWNER),
        "embed_dim": architecture.embed_dim,
        "drawn": draw_layers(architecture),
        "rows": rows,
        "export": f"python search.py export {where} --pick {point.digest} --to my_vit",
        "show": f"python search.py show {where} {point.digest}",
    }


def _cloud(points: Sequence[FrontPoint], numbers: Mapping[str, int]) -> dict[str, list[Any]]:
    """Measured but not on the front, a column a quantity: thousands of them have to be small."""
    values = [_values(point) for point in points]
    columns = {name: [_rounded(row[name]) for row in values] for name in METRICS}
    return {
        **columns,
        "digest": [point.digest for point in points],
        "number": [numbers.get(point.digest) for point in points],
        "embed_dim": [point.architecture.embed_dim for point in points],
        "drawn": [draw_layers(point.architecture) for point in points],
    }


def _rounded(value: float | None) -> float | int | None:
    """To 5 digits: a thousandth of a pixel."""
    if value is None:
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() else short


def _known_designs(space: SearchSpace, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Digest -> name of the known designs, and of the largest architecture."""
    names = {architecture.digest: name for name, architecture in known_designs(space, space.seeds).items()}
    words = {digest: "plain ViT" if name == "deit" else name for digest, name in names.items()}
    largest = manifest.get("reference_digest")
    if largest is not None:
        words[largest] = f"{words[largest]}, largest" if largest in words else "largest"
    return words


def _baselines(
    space: SearchSpace, manifest: Mapping[str, Any], measured: Mapping[str, FrontPoint]
) -> list[dict[str, Any]]:
    """The known designs that the search measured."""
    return [
        {**_values(measured[digest]), "digest": digest, "name": name}
        for digest, name in _known_designs(space, manifest).items()
        if digest in measured
    ]


def _picks(front: ParetoFront) -> dict[str, str]:
    picks = {"knee": front.knee().digest}
    for name, metric in (("top1", TOP1), ("fastest", LATENCY), ("cheapest", MACS)):
        if all(not math.isnan(point.value(metric)) for point in front.points):
            picks[name] = front.pick(name).digest
    return picks


def _units(points: Sequence[FrontPoint]) -> dict[str, dict[str, Any]]:
    """Divisor, words and decimals of each metric, the same everywhere on the page."""
    found: dict[str, dict[str, Any]] = {}
    batches = {str(point.measurement.conditions.latency_batch_size) for point in points}
    texts = {
        TOP1: ("{}%", "top-1"),
        MACS: ("{}MACs/image", "MACs"),
        PARAMS: ("{} parameters", "parameters"),
        LATENCY: ("{}" + f"ms per batch of {' or '.join(sorted(batches))}", "latency"),
    }
    for metric, (text, label) in texts.items():
        values = [v for point in points if not math.isnan(v := point.value(metric))]
        factor, prefix = unit_of(values) if metric in (MACS, PARAMS) else (1.0, "")
        least = min((value / factor for value in values if value > 0), default=1.0)
        decimals = 1 if metric is TOP1 else min(max(1 - math.floor(math.log10(least)), 0), 3)
        found[metric.name] = {
            "factor": factor,
            "unit": text.format(prefix).strip(),
            "label": label,
            "decimals": 0 if metric is PARAMS and factor == 1 else decimals,
            "is_measured": bool(values),
        }
    return found


def _common_errors(trials: Iterable[Trial]) -> list[tuple[str, int]]:
    words = Counter((trial.error or "no reason recorded").splitlines()[0] for trial in trials if trial.error)
    return words.most_common(COMMON_ERRORS)


def _random_search(
    run: RunDirectory,
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    constraints: Mapping[str, float | None],
) -> dict[str, Any]:
    """Another run's trials, up to the same number of paid ones, where they may be compared at all."""
    sampler = flat_config(run.config()).get("search.sampler")
    if sampler != "random":
        raise RunError(
            f"{run.path}: its sampler is {sampler}, not random",
            hint="search.py run SPACE.yaml --init RUN --epochs 0 --sampler random",
        )
    budget = sum(trial.state in PAID for trial in trials)
    kept, paid = [], 0
    for trial in _ended(run.trials()):
        paid += trial.state in PAID
        if paid <= budget:
            kept.append(trial)
    ours = next((t.measurement.conditions for t in trials if t.measurement and t.is_whole), None)
    theirs = next((t.measurement.conditions for t in kept if t.measurement and t.is_whole), None)
    if ours is None or theirs != ours:
        raise RunError(
            f"{run.path}: its trials were measured under other conditions",
            hint="a random search on the same weights: run SPACE.yaml --init RUN --epochs 0 --sampler random",
        )
    front = ParetoFront.from_trials(kept, objectives, constraints)
    return {
        "run": run.name,
        "num_trials": min(paid, budget),
        "hypervolume": front.hypervolume(),
        "points": [_values(point) for point in front.points],
        "curve": hypervolume_curve(kept, objectives, constraints),
    }


def _facts(run: RunDirectory, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the numbers rest on beside the conditions: (words, value)."""
    budget = manifest.get("budget") or {}
    config = flat_config(run.config())
    facts: list[tuple[str, Any]] = [
        ("data", config.get("data.spec")),
        ("classes", len(manifest.get("class_names", ())) or None),
        ("seed of splits, training and search", manifest.get("seed")),
        ("sampler", config.get("search.sampler")),
        ("trials asked for", budget.get("num_trials")),
        ("training epochs", config.get("train.epochs")),
        ("device of the run", manifest.get("device")),
        ("training threads", manifest.get("threads")),
        ("space digest", manifest.get("space_digest")),
        ("weights digest", manifest.get("supernet_digest")),
        *((f"hash of the {name} split", digest) for name, digest in manifest.get("splits", {}).items()),
        *((f"version of {name}", text) for name, text in manifest.get("versions", {}).items()),
        ("started with", manifest.get("command")),
    ]
    return [(words, str(value)) for words, value in facts if value is not None]
