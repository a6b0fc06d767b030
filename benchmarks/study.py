"""Is what the product finds worth having? Against plain ViTs, at equal cost and at equal total time, on real images.

    python benchmarks/study.py --data parquet:cifar10-train.parquet,cifar10-test.parquet --images 8000 --seeds 3 \
        --part search alone equal-time latency table --seconds 3000

The protocol, with the hypotheses and what decides them, is in results/LOG.md, `Study: protocol, second version`; it was
written before any result. In short, for each data set and seed, which are a place:

- `search`: the product as a user runs it on study_space.yaml, `train`, `search`, `finalists`; and on
  study_elastic.yaml, sizes alone, whose supernet has as many epochs as take the same time.
- `alone`: at each level of MACs, one network of each arm trained alone, equally: `found` (the search's front),
  `finalists`, `plain` (the best of 6 shapes by the search split, all trained), `hand` (a plain ViT with one pooling),
  `elastic`, `random`. With --from-inherited all of them again from their supernet's weights, a third of the epochs.
  A test split is opened once for each network that an arm has, when its training has ended, and for the networks that
  the whole search split and each half of it choose by inherited weights: these say what optimism is in a front.
- `equal-time`: the seconds of train, search and finalists, spent on plain shapes alone: successive halving.
- `latency`: eager at batch 64 and ONNX Runtime at batch 1, one thread, interleaved. When nothing else runs.
- `table`: results/reference/study.csv, study_optimism.csv, study_equal_time.csv and study.png.

Seconds are of the processes' CPU time with one thread each, or by the clock with --device cuda, where --processes 1 is
needed for fair ones. What has ended is a line of OUT/runs.jsonl and not repeated; trainings go on from checkpoints.
A place whose parts have all ended is in KEPT/results.jsonl, which is committed: the tables are made of that and of what
OUT has of other places. Options of the same OUT and KEPT must stay the same, but for --part, --seeds, --seconds and
--processes.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from mechanisms import stop
from study_networks import (
    LEVELS,
    SHAPES,
    Pick,
    affordable,
    by_hand,
    finalist_pick,
    found_pick,
    halves_picks,
    plain_shapes,
    random_network,
    rungs,
    survivors,
)
from study_tables import Result, place_results, tables
from study_work import Job, Lines, Place, Workers, command, first_images, opened, seconds_of, step_seconds
from tables import REFERENCE

from nas.arch import Architecture
from nas.base import Reporter
from nas.jobs import reopen
from nas.latency import LatencyMeter, random_subnet
from nas.runs import RunDirectory
from nas.settings import Target
from nas.space import SearchSpace

HERE = Path(__file__).resolve().parent
EAGER, ORT = Target(runtime="torch-cpu", threads=1), Target(runtime="onnxruntime-cpu", threads=1)
PARTS = ("search", "alone", "equal-time", "latency", "table")


def elastic_epochs(place: Place, lines: Lines, asked: argparse.Namespace) -> int:
    """Of the elastic supernet: as many as take the time of the joint one's."""
    about = {"part": "search", "data": place.data, "seed": place.seed, "name": "steps"}
    if not (known := lines.of(**about)):
        session = reopen(place.joint, Reporter(quiet=True))
        elastic = SearchSpace.from_yaml(asked.elastic_space).with_num_classes(session.data.info.num_classes)
        spaces = [session.space, elastic]
        ours, theirs = step_seconds(place.joint, spaces, place.folder / "steps", asked.device)
        epochs = max(1, round(asked.epochs * ours / theirs))
        lines.add({**about, "joint_step_s": ours, "elastic_step_s": theirs, "epochs": epochs})
        known = lines.of(**about)
    return int(known[0]["epochs"])


def search(place: Place, lines: Lines, asked: argparse.Namespace) -> bool:
    """Every command of one data set and seed; whether all have ended."""

    def train(space: Path, epochs: int, run: Path) -> list[str]:
        settings = [word for each in asked.set for word in ("--set", each)]
        words = [
            "train",
            str(space),
            "--data",
            place.spec,
            "--run",
            str(run),
            "--epochs",
            str(epochs),
            "--workers",
            "0",
        ]
        return [*words, "--seed", str(place.seed), "--device", asked.device, "--precision", asked.precision, *settings]

    def searched(run: Path) -> list[str]:
        return ["search", str(run), "--trials", str(asked.trials), "--workers", "0"]

    finalists = ["finalists", str(place.joint), "--count", str(asked.count), "--workers", "0"]
    if asked.finalist_epochs:
        finalists += ["--epochs", str(asked.finalist_epochs)]
    return (
        command(train(asked.space, asked.epochs, place.joint), "train", place, lines, asked)
        and command(searched(place.joint), "search", place, lines, asked)
        and command(finalists, "finalists", place, lines, asked)
        and command(
            train(asked.elastic_space, elastic_epochs(place, lines, asked), place.elastic),
            "elastic train", place, lines, asked,
        )
        and command(searched(place.elastic), "elastic search", place, lines, asked)
    )  # fmt: skip


def job_of(part: str, place: Place, name: str, start: str, epochs: int, architecture: Architecture) -> Job:
    """A job on the place's joint run."""
    return Job(
        part=part, data=place.data, seed=place.seed, name=name, start=start, epochs=epochs, architecture=architecture,
        run=place.joint, folder=place.folder / "alone",
    )  # fmt: skip


def space_at(place: Place) -> SearchSpace:
    """The joint space with the data's classes."""
    return opened(place.joint)[0].space


def plain_pick(place: Place, lines: Lines, level: float, asked: argparse.Namespace) -> Pick | None:
    """The best of the plain shapes of a level by the search split; None before all are trained."""
    shapes = plain_shapes(space_at(place), level, asked.shapes)
    found = lines.of(part="alone", data=place.data, seed=place.seed, start="scratch", epochs=asked.alone_epochs)
    top1s = {line["digest"]: line["top1"] for line in found}
    if not shapes or not all(shape.digest in top1s for shape in shapes):
        return None
    best = max(shapes, key=lambda shape: (top1s[shape.digest], shape.digest))
    return Pick(level=level, arm="plain", architecture=best)


def picks_of(place: Place, lines: Lines, asked: argparse.Namespace) -> list[Pick]:
    """Every arm's network at every level, as far as they are known."""
    joint, elastic, space = RunDirectory.open(place.joint), RunDirectory.open(place.elastic), space_at(place)
    found: list[Pick | None] = []
    for level in asked.levels:
        found += [found_pick(joint, level, "found"), finalist_pick(joint, level)]
        found += [plain_pick(place, lines, level, asked), found_pick(elastic, level, "elastic")]
        drawn = {"hand": by_hand(space, level), "random": random_network(space, level, place.seed)}
        found += [Pick(level=level, arm=arm, architecture=a) for arm, a in drawn.items() if a is not None]
    return [pick for pick in found if pick is not None]


def alone_jobs(place: Place, lines: Lines, asked: argparse.Namespace) -> list[Job]:
    """What can be done now: trainings of all arms, then tests of the arms' networks."""
    picks, space = picks_of(place, lines, asked), space_at(place)
    architectures: dict[Architecture, None] = {}  # all of a level first
    for level in asked.levels:
        architectures |= dict.fromkeys(pick.architecture for pick in picks if pick.level == level)
        architectures |= dict.fromkeys(plain_shapes(space, level, asked.shapes))
    jobs = [job_of("alone", place, "alone", "scratch", asked.alone_epochs, a) for a in architectures]
    arms = [job_of("alone", place, "alone", "scratch", asked.alone_epochs, pick.architecture) for pick in picks]
    if asked.from_inherited:
        short = max(1, asked.alone_epochs // 3)
        for pick in picks:
            name = "elastic" if pick.arm == "elastic" else "alone"  # the supernet that its weights come from
            job = job_of("alone", place, name, "inherited", short, pick.architecture)
            arms.append(replace(job, run=place.elastic) if name == "elastic" else job)
    jobs += [job for job in arms if job.start == "inherited"]
    tests = [replace(job, part="test") for job in arms if lines.has(job)]
    joint = RunDirectory.open(place.joint)
    for level in asked.levels:
        tests += [
            job_of("test", place, "supernet", "supernet", 0, point.architecture)
            for point, _ in halves_picks(joint, level).values()
        ]
    return list({json.dumps(job.key()): job for job in [*jobs, *tests]}.values())


def halving_jobs(place: Place, lines: Lines, asked: argparse.Namespace) -> list[Job]:
    """What can be done now of successive halving over plain shapes in the time of the search, and the last tests."""
    about = {"data": place.data, "seed": place.seed}
    shapes = {level: plain_shapes(space_at(place), level, asked.rivals) for level in asked.levels}
    shapes = {level: found for level, found in shapes.items() if found}
    if not lines.of(part="plan", **about):
        seconds = {level: epoch_seconds(place, lines, level, asked) for level in shapes}
        known = {level: each for level, each in seconds.items() if each is not None}
        if len(known) < len(shapes):
            print(f"{place.data} seed {place.seed}: no time of an epoch yet; --part alone first", flush=True)
            return []
        budget = asked.budget or seconds_of(lines, place, "train", "search", "finalists")
        epochs = affordable({level: len(found) for level, found in shapes.items()}, known, budget)
        lines.add({"part": "plan", **about, "epochs": epochs, "budget": budget, "epoch_seconds": list(known.values())})
    epochs = lines.of(part="plan", **about)[0]["epochs"]
    jobs = []
    for found in shapes.values():
        by_digest = {shape.digest: shape for shape in found}
        scores = dict.fromkeys(by_digest, 0.0)
        for count, length in rungs(len(found), epochs):
            left = [by_digest[digest] for digest in survivors(scores, count)]
            rung = [job_of("halving", place, "halving", "scratch", length, shape) for shape in left]
            jobs += rung
            if not all(lines.has(job) for job in rung):
                break
            scores = {job.architecture.digest: lines.of(**job.key())[0]["top1"] for job in rung}
        else:
            jobs += [replace(job, part="test") for job in rung]
    return [*jobs, *finalist_tests(place, asked)]


def finalist_tests(place: Place, asked: argparse.Namespace) -> list[Job]:
    """Tests of what the product itself trained: the finalists' own weights."""
    run = RunDirectory.open(place.joint)
    picks = [pick for level in asked.levels if (pick := finalist_pick(run, level)) and pick.on_front]
    return [job_of("test", place, "finalists", "finalist", 0, pick.architecture) for pick in picks]


def epoch_seconds(place: Place, lines: Lines, level: float, asked: argparse.Namespace) -> float | None:
    """Of a plain shape of a level, from trainings alone that no kill broke off; None where there is none yet."""
    digests = {shape.digest for shape in plain_shapes(space_at(place), level, asked.shapes)}
    found = lines.of(part="alone", data=place.data, seed=place.seed, start="scratch", whole=True)
    each = [line["seconds"] / line["epochs"] for line in found if line["digest"] in digests]
    return mean(each) if each else None


# --- latency, and the command --------------------------------------------------------------------------------


def latency(place: Place, lines: Lines, asked: argparse.Namespace) -> None:
    """Milliseconds of every arm's network, one thread, interleaved: a line for the data set and seed."""
    about = {"part": "latency", "data": place.data, "seed": place.seed}
    if lines.of(**about):
        return
    torch.set_num_threads(1)
    space = space_at(place)
    networks = {pick.architecture.digest: pick.architecture for pick in picks_of(place, lines, asked)}
    subnets = [random_subnet(space.backbone, architecture) for architecture in networks.values()]
    shape = (3, space.backbone.image_size, space.backbone.image_size)
    found: dict[str, dict[str, float]] = {digest: {} for digest in networks}
    for name, target, batch in (("eager_b64", EAGER, 64), ("ort_b1", ORT, 1)):
        timings, _ = LatencyMeter(subnets[0], shape, batch, target).interleaved(subnets, asked.rounds)
        for digest, timing in zip(networks, timings, strict=True):
            found[digest][name] = round(timing.median_ms, 4)
    lines.add({**about, "rounds": asked.rounds, "ms": found})


def places_of(asked: argparse.Namespace) -> list[Place]:
    """Every data set and seed, all data sets of a seed first."""
    names = {spec: Path(spec.partition(":")[2].partition(",")[0] or spec).stem for spec in asked.data}
    specs = {
        name: first_images(spec, asked.images, asked.out) if asked.images else spec for spec, name in names.items()
    }
    return [
        Place(spec=spec, data=name, seed=seed, folder=asked.out / f"{name}-{seed}")
        for seed in range(asked.seeds)
        for name, spec in specs.items()
    ]


def has_ended(place: Place, lines: Lines, asked: argparse.Namespace) -> bool:
    """Whether nothing of a place is left to do."""
    about = {"data": place.data, "seed": place.seed}
    if not all(lines.of(part=part, **about) for part in ("alone", "plan", "latency")):
        return False
    return all(lines.has(job) for job in (*alone_jobs(place, lines, asked), *halving_jobs(place, lines, asked)))


def arguments(words: list[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["table"])
    parser.add_argument("--data", nargs="+", required=True, help="data specs with a test split")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--space", type=Path, default=HERE / "study_space.yaml")
    parser.add_argument("--elastic-space", type=Path, default=HERE / "study_elastic.yaml")
    parser.add_argument("--images", type=int, help="the first so many of a parquet file; not given: all")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="MMACs")
    parser.add_argument("--shapes", type=int, default=SHAPES, help="plain ones a level, of `alone`")
    parser.add_argument("--rivals", type=int, default=12, help="plain ones a level, of `equal-time`")
    parser.add_argument("--budget", type=float, help="seconds of `equal-time`; not given: what the search took")
    parser.add_argument("--epochs", type=int, default=60, help="of the joint supernet")
    parser.add_argument("--trials", type=int, default=160, help="of each search")
    parser.add_argument("--count", type=int, default=12, help="of `finalists`")
    parser.add_argument("--finalist-epochs", type=int, help="not given: in half of the supernet's MACs")
    parser.add_argument("--alone-epochs", type=int, default=40)
    parser.add_argument("--from-inherited", action="store_true", help="arms also from inherited weights")
    parser.add_argument("--set", action="append", default=[], help="of the runs, as of `search.py run`")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end so many after the start")
    parser.add_argument("--rounds", type=int, default=20, help="of `latency`")
    parser.add_argument("--out", type=Path, default=Path("results/study"))
    parser.add_argument("--kept", type=Path, default=REFERENCE / "study")
    asked = parser.parse_args(words)
    asked.deadline = time.time() + asked.seconds
    asked.out = asked.out.absolute()
    for folder in (asked.out, asked.kept):
        folder.mkdir(parents=True, exist_ok=True)
    return asked


def main(words: list[str] | None = None) -> None:
    """Do what is missing, until the deadline; write the tables."""
    asked = arguments(words)
    lines, kept = Lines(asked.out), Lines(asked.kept, "results.jsonl")
    places = [place for place in places_of(asked) if not kept.of(data=place.data, seed=place.seed)]
    if "search" in asked.part:
        with ThreadPoolExecutor(asked.processes) as pool:
            list(pool.map(lambda place: search(place, lines, asked), places))
    ready = [
        place
        for place in places
        if lines.of(part="search", data=place.data, seed=place.seed, name="elastic search", ended=True)
    ]
    workers = Workers(asked, lines)
    try:
        for part, jobs_of in (("alone", alone_jobs), ("equal-time", halving_jobs)):
            while part in asked.part and workers.do([job for place in ready for job in jobs_of(place, lines, asked)]):
                pass
    finally:
        stop(workers.pool)
    for place in ready:
        if "latency" in asked.part and time.time() < asked.deadline:
            latency(place, lines, asked)
    found: list[Result] = [*kept]
    for place in ready:
        results = place_results([*lines], place, picks_of(place, lines, asked), asked)
        found += results
        if has_ended(place, lines, asked):
            kept.add(*results)
    if "table" in asked.part and found:
        tables(found, asked)


if __name__ == "__main__":
    main()
