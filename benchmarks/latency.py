"""How far latency can be believed, predicted and bounded, and what other deployments make of it.

    python benchmarks/latency.py [--parts noise slowed predictor deployments bound] [--rounds 15] [--architectures 80]

noise: coefficient of variation and repeat tau of a naive loop and of interleaved ratios, on the machine as it is and
beside processes that keep every core busy. slowed: whether a network is told from itself with a little more work.
predictor: latency profiles, cross-validated, beside MACs and mean tokens. deployments: runtimes and precisions in turn,
over eager torch. bound: searches under a latency bound, whose fronts another process measures again. Run it on a quiet
machine.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau
from tables import write_table
from torch import nn

from nas.base import Reporter
from nas.latency import (
    LatencyMeter,
    default_batch,
    design,
    measure_alone,
    own_cores,
    prepare,
    profile_space,
    random_subnet,
)
from nas.model import Subnet
from nas.settings import Target, parse_target
from nas.space import SearchSpace

ROOT = Path(__file__).resolve().parent.parent
SPACES = ("cifar_small", "joint_tiny")  # 32 px, batch 64; 224 px, batch 1
EAGER = Target(runtime="torch-cpu")
DEPLOYMENTS = (
    "torch-cpu",
    "torch-cpu:precision=bf16",
    "torch-cpu-packed",
    "torch-cpu-packed:precision=bf16",
    "torch-cpu-compiled",
    "torch-cpu-compiled:precision=bf16",
    "onnxruntime-cpu",
)
PARTS = ("noise", "slowed", "predictor", "deployments", "bound")
EXTRA_IMAGES = (1, 3, 6, 13)  # of 64: 2 to 20 % more work


def load(name: str) -> SearchSpace:
    """A space of the repository, for 10 classes where the data decides."""
    space = SearchSpace.from_yaml(str(ROOT / "search_spaces" / f"{name}.yaml"))
    return space.with_num_classes(10) if space.num_classes_from_data else space


def meter_of(space: SearchSpace, target: Target = EAGER) -> LatencyMeter:
    """As in a search: the largest subnet is the reference."""
    size = space.backbone.image_size
    shape = (space.backbone.in_chans, size, size)
    return LatencyMeter(random_subnet(space.backbone, space.largest()), shape, default_batch(size), target)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep as many cores busy as asked for, half of the time, in turns: as a browser and a build do."""
    burn = (
        "import time, numpy\n"
        "a = numpy.random.rand(600, 600)\n"
        "while True:\n"
        "    end = time.perf_counter() + 0.5 * numpy.random.rand()\n"
        "    while time.perf_counter() < end: a @ a\n"
        "    time.sleep(0.25 * numpy.random.rand())\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", burn], env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
        for _ in range(processes)
    ]
    try:
        time.sleep(2 if processes else 0)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def naive(meter: LatencyMeter, subnets: Sequence[Subnet], passes: int) -> list[float]:
    """Milliseconds a pass: a loop over each model in its turn, as rivals have it."""
    found = []
    with torch.inference_mode():
        for subnet in subnets:
            started = time.perf_counter()
            for _ in range(passes):
                subnet(meter.images)
            found.append(1e3 * (time.perf_counter() - started) / passes)
    return found


def noise(name: str, rounds: int, repeats: int, count: int) -> list[dict[str, object]]:
    """Rows of one space: method and load."""
    space = load(name)
    subnets = [random_subnet(space.backbone, a) for a in design(space, count, 0)]
    meter = meter_of(space)
    found: dict[tuple[str, str], list[list[float]]] = {}
    noisy: dict[str, list[bool]] = {}
    for state, processes in (("quiet", 0), ("loaded", len(os.sched_getaffinity(0)))):
        with busy(processes):
            for _ in range(repeats):
                found.setdefault((state, "naive loop, ms"), []).append(naive(meter, subnets, rounds))
                readings = measure_alone(meter, subnets, rounds)
                ratios = [timing.median_ms / readings.clock.median_ms for timing in readings.timings]
                found.setdefault((state, "interleaved ratio"), []).append(ratios)
                noisy.setdefault(state, []).extend(timing.is_noisy for timing in readings.timings)
    rows = []
    for (state, method), values in found.items():
        table = np.array(values)  # [repeats, models]
        quiet = np.median(np.array(found["quiet", method]), axis=0)
        shift = np.abs(np.median(table, axis=0) / quiet - 1)
        taus = [kendalltau(a, b).statistic for a, b in itertools.combinations(table, 2)]
        rows.append(
            {
                "space": name,
                "state": state,
                "method": method,
                "models": len(subnets),
                "repeats": repeats,
                "cv_percent": round(100 * float((table.std(axis=0, ddof=1) / table.mean(axis=0)).mean()), 2),
                "repeat_tau": round(float(np.mean(taus)), 3),
                "shift_from_quiet_percent": round(100 * float(shift.mean()), 2),
                "largest_shift_percent": round(100 * float(shift.max()), 2),
                "marked_noisy": round(float(np.mean(noisy[state])), 2) if method != "naive loop, ms" else "",
            }
        )
    return rows


class Slowed(nn.Module):
    """A network that does some of its work twice."""

    def __init__(self, subnet: Subnet, extra: int) -> None:
        super().__init__()
        self.subnet, self.extra = subnet, extra

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of all images; those of the first ones are computed again."""
        self.subnet(images[: self.extra])
        logits: torch.Tensor = self.subnet(images)
        return logits


def slowed(name: str, rounds: int, repeats: int) -> list[dict[str, object]]:
    """Rows of one space: is a network that was slowed down a little told from what it was?"""
    space = load(name)
    subnet = random_subnet(space.backbone, space.smallest())
    size = space.backbone.image_size
    shape = (space.backbone.in_chans, size, size)
    meter = LatencyMeter(subnet, shape, default_batch(size), EAGER)
    models = [subnet, *(Slowed(subnet, extra) for extra in EXTRA_IMAGES)]
    rows: list[dict[str, object]] = []
    for state, processes in (("quiet", 0), ("loaded", len(os.sched_getaffinity(0)))):
        with busy(processes):
            timings = [measure_alone(meter, models, rounds).timings for _ in range(repeats)]
        for i, extra in enumerate(EXTRA_IMAGES, start=1):
            slower = [found[i].median_ms / found[0].median_ms - 1 for found in timings]
            rows.append(
                {
                    "space": name,
                    "state": state,
                    "batch": len(meter.images),
                    "computed_twice": extra,
                    "repeats": repeats,
                    "slower_percent": round(100 * float(np.median(slower)), 1),
                    "least": round(100 * min(slower), 1),
                    "most": round(100 * max(slower), 1),
                    "found_slower": sum(x > 0 for x in slower),
                    "intervals_apart": sum(not found[i].ties(found[0]) for found in timings),
                }
            )
    return rows


def predictor(name: str, text: str, rounds: int, count: int) -> list[dict[str, object]]:
    """Rows of one space and target: the profile and its baselines."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        values = profile_space(load(name), parse_target(text), count, rounds, 0, file, Reporter())
    shared = {
        "space": name,
        "target": text,
        **{key: values[key] for key in ("batch", "image_size", "architectures", "noisy", "usable")},
        "repeat_tau": round(values["repeat_tau"], 3),
    }
    return [
        {
            **shared,
            "predictor": row["predictor"],
            "mape_percent": round(row["mape_percent"], 2),
            "tau": round(row["tau"], 3),
        }
        for row in values["predictors"]
    ]


def deployments(name: str, texts: Sequence[str], rounds: int) -> list[dict[str, object]]:
    """Rows of one space: each target over eager torch, for its largest and its smallest network, in turn."""
    space = load(name)
    rows: list[dict[str, object]] = []
    images = meter_of(space).images
    for size, architecture in (("largest", space.largest()), ("smallest", space.smallest())):
        subnet = random_subnet(space.backbone, architecture)
        programs, ready_s = {}, {}
        for text in texts:
            started = time.perf_counter()
            programs[text] = prepare(parse_target(text), subnet, images)
            ready_s[text] = time.perf_counter() - started
        seconds: dict[str, list[float]] = {text: [] for text in texts}
        with own_cores(EAGER), torch.inference_mode():
            for r in range(rounds + 1):
                for text in np.random.default_rng(r).permutation(texts).tolist():
                    programs[text]()
                    started = time.perf_counter()
                    programs[text]()
                    seconds[text].append(time.perf_counter() - started)
        eager = np.array(seconds[texts[0]][1:])
        for text in texts:
            ratios = np.array(seconds[text][1:]) / eager
            rows.append(
                {
                    "space": name,
                    "network": size,
                    "batch": len(images),
                    "target": text,
                    "ms": round(1e3 * float(np.median(seconds[text][1:])), 3),
                    "over_eager": round(float(np.median(ratios)), 3),
                    "quartiles": " ".join(f"{q:.3f}" for q in np.quantile(ratios, [0.25, 0.75])),
                    "seconds_to_prepare": round(ready_s[text], 1),
                }
            )
    return rows


def bound(searches: int, trials: int, epochs: int) -> list[dict[str, object]]:
    """A row a search of the digits: is the bound kept when another process measures the front?"""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        space = str(ROOT / "search_spaces" / "digits.yaml")
        quick = ("--workers=0", "--set=search.population_size=8")
        searched(space, "--run", str(base), f"--epochs={epochs}", "--trials=8", *quick)
        front = json.loads((base / "front.json").read_text())
        latencies = sorted(point["latency_ms"] for point in front["points"])
        for seed in range(searches):
            limit = float(np.quantile(latencies, 0.3 + 0.5 * seed / max(1, searches - 1)))
            run = Path(folder) / f"run{seed}"
            options = ("--init", str(base), "--epochs=0", f"--seed={seed}", f"--trials={trials}", *quick)
            searched(space, "--run", str(run), f"--set=constraints.max_latency_ms={limit}", *options)
            again = json.loads(output("latency", str(run), "--target=torch-cpu:batch=64", "--format=json"))
            (table,) = again["targets"]
            said = json.loads((run / "front.json").read_text())
            known = {p["digest"]: p["latency_ms"] / said["latency"][0]["reference_ms"] for p in said["points"]}
            ratios = [p["latency_ms"] / table["reference_ms"] / known[p["digest"]] for p in table["points"]]
            rows.append(
                {
                    "seed": seed,
                    "bound_ms": round(limit, 3),
                    "front": len(table["points"]),
                    "slowest_ms": round(max(p["latency_ms"] for p in table["points"]), 3),
                    "above": sum(p["latency_ms"] > limit for p in table["points"]),
                    "surely_above": sum(p["latency_ci_ms"][0] > limit for p in table["points"]),
                    "reference_again_over_run": round(table["reference_ms"] / said["latency"][0]["reference_ms"], 3),
                    "ratio_again_over_run": round(float(np.median(ratios)), 3),
                    "range": f"{min(ratios):.3f} {max(ratios):.3f}",
                    "repeat_tau": table["repeat_tau"],
                }
            )
    return rows


def searched(*arguments: str) -> None:
    """`run`, in a process of its own."""
    output("run", *arguments, "--format=json")


def output(*arguments: str) -> str:
    """Standard output of a command."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "search.py"), *arguments, "-q"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", type=int, default=10, help="of the noise part")
    parser.add_argument("--architectures", type=int, default=80, help="of a profile")
    parser.add_argument("--targets", nargs="+", default=list(DEPLOYMENTS), help="of the deployments part, eager first")
    parser.add_argument("--profile-targets", nargs="+", default=["torch-cpu", "torch-cpu-packed"])
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    how = f"{given.rounds} rounds, batch 64 at 32 px and 1 at 224 px"
    if "noise" in given.parts:
        rows = [row for name in given.spaces for row in noise(name, given.rounds, given.repeats, given.models)]
        write_table("latency_noise", rows, f"architectures of a space timed again and again; {how}")
    if "slowed" in given.parts:
        rows = slowed("cifar_small", given.rounds, given.repeats)
        how_long = f"{given.rounds} to {3 * given.rounds} rounds"
        notes = f"the smallest network beside itself with some images computed twice; {how_long}"
        write_table("latency_slowed", rows, notes)
    if "predictor" in given.parts:
        for name in given.spaces:
            rows = [
                row
                for text in given.profile_targets
                for row in predictor(name, text, given.rounds, given.architectures)
            ]
            notes = f"latency of architectures left out in turn (10 folds); {how}"
            write_table(f"latency_predictor_{name}", rows, notes)
    if "deployments" in given.parts:
        rows = [row for name in given.spaces for row in deployments(name, given.targets, given.rounds)]
        write_table("latency_deployments", rows, f"one network in several runtimes, in turn; {how}")
    if "bound" in given.parts:
        rows = bound(given.searches, given.trials, given.epochs)
        write_table(
            "latency_bound",
            rows,
            f"fronts of digits under constraints.max_latency_ms, {given.trials} trials, measured again by `latency`",
        )


if __name__ == "__main__":
    main()
