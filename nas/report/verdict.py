"""What a front is worth beside the plain ViT of its space, and beside chance: one sentence, with the interval."""

import math
from dataclasses import replace
from typing import Any

from nas.arch import Architecture
from nas.base import BALANCED, LATENCY, MACS, Metric
from nas.runs import FrontPoint, Manifest, RunResults, plain_vits
from nas.space import is_plain


def chance_level(manifest: Manifest, accuracy: Metric) -> float:
    """The accuracy in percent of who has not seen the image: one class at random, or always the most frequent one."""
    one = 1 / len(manifest.class_names)
    return 100 * (one if accuracy is BALANCED else max(one, manifest.largest_class or 0.0))


def verdict_of(found: RunResults) -> dict[str, Any]:
    """What the front gains over the most accurate plain ViT that was measured, JSON values.

    `chance` is in percent. `plain` and the keys behind it are None where no plain ViT was measured as the front
    was, or where the front is ranked by a metric of one's own; `text` is the sentence. Where latencies are bounded it
    is the best plain ViT within the bounds, and if there is none the best of all. Compared is the front's member of the
    fewest MACs that is at least as accurate, or else the most accurate one; `difference` is its accuracy minus the
    plain ViT's, in points, `margin` half of the 95 % interval by the images of both, as if these were others for each:
    on the same images it is less.
    """
    front, accuracy = found.front, found.front.accuracy
    chance = chance_level(found.run.manifest, accuracy)
    values: dict[str, Any] = dict.fromkeys(
        ("plain", "digest", "macs_ratio", "latency_ratio", "difference", "margin", "is_told_apart")
    )
    plain = best_plain(found)
    if plain is None or not front.points or front.ranked_by != accuracy:
        return {"chance": chance, **values, "text": None}
    own = plain.value(accuracy)
    equal = [point for point in front.points if point.value(accuracy) >= own]
    rival = (
        min(equal, key=lambda point: (point.value(MACS), point.digest))
        if equal
        else max(front.points, key=lambda point: point.value(accuracy))
    )
    difference, margin = rival.value(accuracy) - own, _margin(rival, plain, accuracy)
    latencies = rival.value(LATENCY), plain.value(LATENCY)
    values |= {
        "plain": plain.digest,
        "digest": rival.digest,
        "macs_ratio": rival.value(MACS) / plain.value(MACS),
        "latency_ratio": latencies[0] / latencies[1] if all(map(math.isfinite, latencies)) else None,
        "difference": difference,
        "margin": margin,
        "is_told_apart": None if margin is None else abs(difference) > margin,
    }
    bounds = found.run.manifest.constraints
    place = (
        "" if not bounds else " within the bounds" if plain.measurement.keeps(bounds) else ", which breaks the bounds,"
    )
    return {"chance": chance, **values, "text": _sentence(values, plain, accuracy, place)}


def best_plain(found: RunResults) -> FrontPoint | None:
    """The most accurate plain ViT that was measured as the front was, of several the cheapest; None: there is none.

    Those within the bounds on latency come first: others are not what this search is to beat.
    Beside a front of finalists it is one that was trained alone to the end; of one that is not on the front no interval
    is known.
    """
    accuracy, finalists = found.front.accuracy, (found.run.front() or {}).get("finalists")
    points = [point for point in plain_vits(found).points if math.isfinite(point.value(accuracy))]
    if finalists is not None:
        points = [point for point in found.front.points if is_plain(point.architecture)]
        others = {point.digest: point for point in found.others}
        for row in finalists["candidates"]:
            if row["plain"] and row["trained"][-1] is not None and row["digest"] in others:
                points.append(_trained(others[row["digest"]], accuracy, row["trained"][-1]))
    bounds = found.run.manifest.constraints
    within = [point for point in points if point.measurement.keeps(bounds)]
    return max(within or points, key=lambda point: (point.value(accuracy), -point.value(MACS)), default=None)


def _trained(point: FrontPoint, accuracy: Metric, value: float) -> FrontPoint:
    """A point with the accuracy that it has when it is trained alone."""
    changes: dict[str, Any] = {accuracy.name: value, f"{accuracy.name}_interval": None}
    return replace(point, measurement=replace(point.measurement, **changes))


def chance_words(chance: float, num_classes: int) -> str:
    """Such as `chance: 10.0 % (10 classes)`."""
    why = f"{num_classes} classes" if math.isclose(chance, 100 / num_classes) else "always the most frequent class"
    return f"chance: {chance:.1f} % ({why})"


def shape_words(plain: Architecture) -> str:
    """The sizes of a plain ViT, such as `d64 L3 h4 m2`: width, layers, heads, MLP ratio; another stem, convolutions."""
    first, stem = plain.layers[0], "" if plain.stem == "patch" else f" {plain.stem} stem"
    words = f"d{plain.embed_dim} L{plain.depth} h{first.num_heads} m{first.mlp_ratio:g}{stem}"
    return words + " conv FFN" * first.ffn_conv


def _margin(one: FrontPoint, other: FrontPoint, accuracy: Metric) -> float | None:
    intervals = [point.measurement.intervals.get(accuracy.name) for point in (one, other)]
    if None in intervals:
        return None
    return math.hypot(*((pair[1] - pair[0]) / 2 for pair in intervals if pair))


def _sentence(values: dict[str, Any], plain: FrontPoint, accuracy: Metric, place: str) -> str:
    """In words; `place` follows the name of the plain ViT and says what it is to the bounds."""
    label = accuracy.label
    best = (
        f"the {label} of the best plain ViT{place} ({shape_words(plain.architecture)}, {plain.value(accuracy):.1f} %)"
    )
    if values["digest"] == plain.digest:
        return f"no network of the front has {best} at fewer MACs"
    costs = f"{values['macs_ratio']:.2f} of its MACs"
    costs += "" if values["latency_ratio"] is None else f" and {values['latency_ratio']:.2f} of its latency"
    if values["margin"] is None:
        difference = f"{values['difference']:+.1f} points"
    else:
        told = "told apart" if values["is_told_apart"] else "not told apart"
        difference = f"{values['difference']:+.1f} ± {values['margin']:.1f} points: {told}"
    if values["difference"] < 0:
        return (
            f"the front does not reach {best}: its most accurate network has {costs}; {label} differs by {difference}"
        )
    return f"at {best} the front has {costs}; {label} differs by {difference}"
