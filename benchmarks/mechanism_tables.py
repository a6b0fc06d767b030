"""Tables of `mechanisms.py`: what its finished trainings and the latencies of its networks say."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from mechanism_networks import (
    ALONE,
    BACKBONE,
    DEPTH,
    MECHANISMS,
    SEARCH_IMAGES,
    SUBNETS,
    WIDTH,
    arms,
    backbone_of,
    pairs,
)
from scipy.stats import t as student
from tables import REFERENCE, write_table

from nas.arch import cost
from nas.latency import LatencyMeter
from nas.model import Subnet

CONDITIONS = (
    "Versions before and bff0fd8: a card (NVIDIA H200), fp32, supernets of 40 epochs; 84ffcb9: CPU, bf16, supernets of "
    "14 epochs; since then alone, CPU, bf16"
)
DATA = "cifar10-train"  # of rows that do not say it
BEFORE = "before"  # label of the version that others are compared with; no verdict is of it
PARTS = ("subnets", "arm", "alone")
VERDICTS = Path(__file__).with_name("mechanisms.txt")


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Lines of the trainings that ended, the last of each key."""
    path = out / "runs.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "error" not in line]


def latency(rounds: int, out: Path) -> None:
    """Time of every arm over the plain ViT's, fp32, one thread, by batch size."""
    torch.set_num_threads(1)
    subnets = {name: Subnet(backbone_of(name), architecture) for name, architecture in arms().items()}
    for subnet in subnets.values():
        subnet.init_weights()
        subnet.eval()
    found: dict[str, dict[str, float]] = {name: {} for name in subnets}
    for batch in (1, 64):
        meter = LatencyMeter(subnets["plain"], (3, 32, 32), batch)
        timings, clock = meter.interleaved(list(subnets.values()), rounds)
        for name, timing in zip(subnets, timings, strict=True):
            found[name][f"b{batch}"] = round(timing.median_ms / clock.median_ms, 3)
    (out / "latency.json").write_text(json.dumps(found))


def interval(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Mean over seeds and its 95 % interval, as columns."""
    low: float | str = ""
    high: float | str = ""
    if len(values) > 1:
        half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
        low, high = round(mean(values) - half, 2), round(mean(values) + half, 2)
    return {name: round(mean(values), 2) if values else "", f"{name}_low": low, f"{name}_high": high}


def verdicts() -> dict[str, str]:
    """Sentences by mechanism, as a person wrote them: `name: sentence` a line."""
    text = VERDICTS.read_text() if VERDICTS.exists() else ""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def mechanism_rows(
    lines: list[dict[str, Any]], times: dict[str, dict[str, float]], label: str, data: str
) -> list[dict[str, Any]]:
    """A row for each mechanism of one version on one data set."""
    networks, said = arms(), verdicts()
    supernets = [line for line in lines if line["part"] == "supernet"]
    alone = {(line["name"], line["seed"]): line["top1"] for line in lines if line["part"] == "alone"}
    rows = []
    rivals = {name: (plain, against) for name, (_, _, plain, against) in MECHANISMS.items()} | ALONE
    for name, (plain, against) in rivals.items():
        arm = name if name in networks else name.partition(",")[0]
        one, other = networks[arm], networks[against]
        seeds = [seed for found, seed in alone if found == arm and (against, seed) in alone]
        row: dict[str, Any] = {"version": label, "data": data, "mechanism": name, "instead": plain}
        columns = {
            "subnets": [line["pairs"][name] for line in supernets if name in line["pairs"]],
            "arm": [(line["arms"][arm], line["arms"][against]) for line in supernets if arm in line["arms"]],
            "alone": [(alone[arm, seed], alone[against, seed]) for seed in seeds],
        }
        for column, both in columns.items():
            row[f"{column}_top1"] = round(mean(used for used, _ in both), 2) if both else ""
            row |= interval(f"{column}_gain", [used - unused for used, unused in both])
            row[f"{column}_seeds"] = len(both)
        drawn = pairs(name, SUBNETS) if name in MECHANISMS else ()
        ratios = [cost.macs(a, BACKBONE) / cost.macs(b, BACKBONE) for a, b in drawn]
        row["subnets_macs"] = round(median(ratios), 3) if ratios else ""
        row["arm_macs"] = round(cost.macs(one, backbone_of(arm)) / cost.macs(other, backbone_of(against)), 3)
        for batch in ("b1", "b64"):
            row[f"arm_time_{batch}"] = round(times[arm][batch] / times[against][batch], 3) if arm in times else ""
        rows.append({**row, "verdict": "" if label == BEFORE else said.get(name, "")})
    return rows


def tables(out: Path) -> None:
    """Write what there is; rows of versions without a line in OUT stay as they are, but for their verdicts."""
    lines = lines_of(out)
    path = out / "latency.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    groups, said = list(dict.fromkeys((line["label"], line["data"]) for line in lines)), verdicts()
    with (REFERENCE / "mechanisms.csv").open(newline="") as file:
        earlier = list(csv.DictReader(line for line in file if not line.startswith("#")))
    rows: list[dict[str, Any]] = [
        {
            "version": row["version"],
            "data": DATA,
            **row,
            "verdict": "" if row["version"] == BEFORE else said.get(row["mechanism"], ""),
        }
        for row in earlier
        if row["version"] not in {label for label, _ in groups} and any(row[f"{part}_top1"] for part in PARTS)
    ]
    for label, data in groups:
        of_group = [line for line in lines if (line["label"], line["data"]) == (label, data)]
        found = mechanism_rows(of_group, times, label, data)
        rows += [row for row in found if any(row[f"{part}_top1"] for part in PARTS)]

    network = f"32 px, patch 4, width {WIDTH}, {DEPTH} layers, 4 heads of 24"
    write_table(
        "mechanisms",
        rows,
        f"{network}; 8,000 training images, batch 64. {CONDITIONS}. subnets: {SUBNETS} drawn ones with the mechanism "
        f"in a supernet against the same without, mean on {SEARCH_IMAGES} search images; arm: the plain ViT with the "
        "mechanism wherever it may stand, in the same supernet; alone: that network trained alone, 12 epochs. Gains in "
        "points with 95 % intervals over seeds, paired; macs and time (CPU, fp32, one thread, interleaved): with over "
        "without",
    )
