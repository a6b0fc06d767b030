"""What it saves to evaluate architectures together that begin alike: CPU time of each, one by one and in one pass.

    python benchmarks/shared_evaluation.py [RUN ...]

Runs with a trained supernet give rounds of what their searches proposed, raced as there (top-1 and MACs, all images of
the search split); probe sets and replay tables are of random weights. One by one is what an evaluation was before:
extract, then classify. Every pair of answers is compared, and a difference ends the benchmark.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from replay_evaluator import all_architectures
from tables import write_table
from train_speed import synthetic

from nas.arch import Architecture, cost
from nas.base import MACS, TOP1, Objective, Reporter
from nas.evaluation import EvaluatorSetup, RacePlan, SubnetEvaluator, race
from nas.jobs import evaluator_setup, reopen
from nas.model import Supernet, subtrees
from nas.runs import space_of_run
from nas.settings import EvaluateConfig
from nas.space import SearchSpace, known_designs, plain_shapes
from nas.study import WINDOW, VisibleFront
from nas.training import load_trained

Candidate = tuple[Architecture, RacePlan | None]

ROUNDS = 4  # of a run and a size, at most
MOST_IMAGES = 600  # of a search split that is shown whole, raced
FEW_IMAGES = 256
DESIGNS = 24  # what a search starts from is no round
PROBES = (("digits", "fp32", 512, 287), ("cifar_small", "bf16", 64, 128))
"""Space, precision, architectures of the largest set, images."""

TABLES = (("digits", 287), ("cifar10", 256), ("fashion", 256))
PARTS = 2  # of a table that are measured, with neighbours in sorted order
SAMPLE = 8  # of a part that are measured one by one


def one_by_one(evaluator: SubnetEvaluator, candidates: Sequence[Candidate]) -> list[bytes]:
    """The answers of each, extracted on its own."""
    answers = []
    for architecture, plan in candidates:
        subnet = evaluator.supernet.extract(architecture)
        costs = {"macs": float(cost.macs(architecture, evaluator.setup.space.backbone))}

        def classify(numbers: Any, subnet: Any = subnet) -> Any:
            return evaluator.setup.count_correct(subnet, evaluator.images.chosen(numbers))

        correct, _ = race(classify, len(evaluator.images), costs, plan)
        answers.append(np.packbits(correct).tobytes())
    return answers


def together(evaluator: SubnetEvaluator, candidates: Sequence[Candidate]) -> list[bytes]:
    """The same in one pass."""
    answers = []
    for outcome in evaluator.evaluate_many(candidates):
        assert not isinstance(outcome, Exception), outcome
        answers.append(outcome.correct)
    return answers


def timed(measure: Callable[[], list[bytes]]) -> tuple[float, list[bytes]]:
    """CPU milliseconds, and the answers."""
    started = time.process_time()
    answers = measure()
    return 1e3 * (time.process_time() - started), answers


def compare(
    evaluator: SubnetEvaluator, groups: Sequence[Sequence[Candidate]], sample: int | None = None
) -> dict[str, Any]:
    """Cells of a row: each group together, and all of it, or a sample, one by one; by turns first."""
    alone_ms, shared_ms, in_common = [], [], []
    for i, group in enumerate(groups):
        places = np.linspace(0, len(group) - 1, min(sample or len(group), len(group))).astype(int)
        chosen = [group[place] for place in places]
        measures = [partial(one_by_one, evaluator, chosen), partial(together, evaluator, group)]
        found = {k: timed(measures[k]) for k in ((0, 1) if i % 2 else (1, 0))}
        assert found[0][1] == [found[1][1][place] for place in places], "answers differ"
        alone_ms.append(found[0][0] / len(chosen))
        shared_ms.append(found[1][0] / len(group))
        in_common.append(macs_in_common([architecture for architecture, _ in group], evaluator.setup.space))
    times = np.array(alone_ms) / np.array(shared_ms)
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {
        "groups": len(groups),
        "architectures": len(groups[0]),
        "images": len(evaluator.images),
        "precision": evaluator.setup.precision,
        "one_by_one_ms": round(float(np.mean(alone_ms)), 1),
        "together_ms": round(float(np.mean(shared_ms)), 2),
        "times_cheaper": round(float(middle), 2),
        "quartiles": f"{low:.2f} to {high:.2f}",
        "macs_over_macs_done": round(float(np.median(in_common)), 2),
    }


def macs_in_common(architectures: Sequence[Architecture], space: SearchSpace) -> float:
    """MACs of all over those that are left when every common beginning is computed once: what sharing can save."""
    whole, once = 0, {}
    for architecture in architectures:
        width, key = architecture.embed_dim, ()
        steps = [((width, architecture.stem), cost.outside_macs_params(width, architecture.stem, space.backbone)[0])]
        for i, layer in enumerate(architecture.layers):
            context = architecture.context(i, space.backbone)
            attention = (layer.num_tokens, layer.reducer, layer.attention, layer.num_heads)
            derived = (layer.hallucination, layer.hallucination_ratio, context)
            steps.append(((*attention, *derived), cost.token_macs_params(layer, context, width, space.backbone)[0]))
            pair = (layer.mlp_ratio, layer.ffn_rank)
            count = cost.feed_forward_macs_params(*pair, layer.num_tokens, width, space.backbone)[0]
            steps.append((pair, count))
        for step, count in steps:
            key = (*key, step)
            whole += count
            once[key] = count
    return whole / sum(once.values())


def random_evaluator(space: SearchSpace, precision: str, num_images: int) -> SubnetEvaluator:
    """Random weights and noise: it takes as long as with others."""
    noise = synthetic(space.backbone.image_size, space.backbone.num_classes)
    images = noise.chosen(np.arange(num_images) % len(noise))
    setup = EvaluatorSetup(
        space=space,
        config=EvaluateConfig(),
        info=noise.info,
        device="cpu",
        precision=precision,
        supernet_digest="random",
    )
    return SubnetEvaluator(setup, Supernet(space).requires_grad_(False).eval(), images)


def rounds(path: Path) -> list[dict[str, Any]]:
    """Rows of a run: what its search started from, and rounds of what it proposed then."""
    session = reopen(path, Reporter(quiet=True))
    supernet = load_trained(session.run, session.space, session.device).requires_grad_(False).eval()
    setup, images = evaluator_setup(session), session.data.search
    is_raced = len(images) <= MOST_IMAGES  # of more, the first ones are shown to all
    if not is_raced:
        setup = replace(setup, config=setup.config.model_copy(update={"max_images": FEW_IMAGES}))
    evaluator = SubnetEvaluator(setup, supernet, images)
    trials = {trial.number: trial for trial in session.run.trials() if not trial.is_running}
    front = VisibleFront([Objective(TOP1, 0.0), Objective(MACS, 1.0)], {})
    candidates: list[Candidate] = []
    plain = {shape.digest for shape in plain_shapes(session.space)}
    for number in sorted(trials):
        front.advance(trials, number - WINDOW)
        if trials[number].is_paid:
            digest = trials[number].architecture.digest
            races = is_raced and digest not in plain
            candidates.append((trials[number].architecture, front.race_plan() if races else None))
    print(f"{path}: {len(candidates)} trials", flush=True)
    name = space_of_run(session.run).name
    rows = [{"what": "first designs", "space": name, **compare(evaluator, [candidates[:DESIGNS]])}]
    for size in (8, 16):
        starts = list(range(DESIGNS, len(candidates) - size + 1, size))
        starts = starts[:: -(-len(starts) // ROUNDS)]
        groups = [candidates[start : start + size] for start in starts]
        rows.append(
            {"what": f"round of {size}{', raced' if is_raced else ''}", "space": name, **compare(evaluator, groups)}
        )
    if is_raced:
        groups = [[(architecture, None) for architecture, _ in candidates[DESIGNS : DESIGNS + 16]]]
        rows.append({"what": "round of 16, all images", "space": name, **compare(evaluator, groups)})
    return rows


def probes(name: str, precision: str, most: int, num_images: int) -> list[dict[str, Any]]:
    """Rows of sets of architectures that are drawn, and of what is known of a space."""
    space = SearchSpace.from_yaml(f"search_spaces/{name}.yaml").with_num_classes(10)
    evaluator, rng = random_evaluator(space, precision, num_images), np.random.default_rng(0)
    draws: dict[str, Callable[[], Architecture]] = {
        "uniform": partial(space.sample, rng),
        "MACs-stratified": partial(space.sample_stratified, rng),
    }
    known = list(dict.fromkeys([*known_designs(space, space.seeds).values(), *plain_shapes(space)]))
    sets = {f"{len(known)} known designs and plain shapes": known}
    for count in sorted({64, most}):
        sets |= {f"probe set of {count}, {kind}": [draw() for _ in range(count)] for kind, draw in draws.items()}
    rows = []
    for what, chosen in sets.items():
        cells = compare(evaluator, [[(architecture, None) for architecture in chosen]], sample=16)
        rows.append({"what": what, "space": name, **cells})
        print(rows[-1], flush=True)
    return rows


def table(name: str, num_images: int) -> dict[str, Any]:
    """The row of a replay table: parts of it, of neighbours, and some of each part one by one."""
    space = SearchSpace.from_yaml(f"benchmarks/replay/{name}.yaml").with_num_classes(10)
    every = list(all_architectures(space))
    parts = subtrees(every, space.backbone)
    chosen = [parts[int(i)] for i in np.linspace(0, len(parts) - 2, PARTS)]
    evaluator = random_evaluator(space, "fp32", num_images)
    groups = [[(every[i], None) for i in part] for part in chosen]
    row = {"what": "replay table", "space": space.name, **compare(evaluator, groups, sample=SAMPLE)}
    print(row, flush=True)
    return row


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="with a trained supernet and a search")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [table(*one) for one in TABLES]
    rows += [row for one in PROBES for row in probes(*one)]
    rows += [row for run in arguments.runs for row in rounds(run)]
    write_table(
        "shared_evaluation",
        rows,
        "CPU milliseconds per architecture, without latency, interleaved in one process, one thread; answers are equal "
        "bit for bit; median and quartiles over groups",
    )


if __name__ == "__main__":
    main()
