"""Times the ONNX models of this folder on this device. Needs Python 3.10 or later, numpy and onnxruntime, no more.

    python measure.py --threads 1

Every model is timed in turn with the reference model, whose drift is divided out; rounds go on until each median is
known within 2 % or `--most-rounds` are spent. Writes results.json beside the models, and prints the figures. Exit
code 2: the pack is damaged, or onnxruntime cannot take a model; a line says which.
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

WARM_UP, LONGEST_WARM_UP = 3, 20  # calm passes that end the warm-up, and after how many it ends at the latest
STILL_FALLING = 0.95  # of the fastest pass so far: a pass below this says that the model is not warm yet
SHORTEST_S = 0.005  # a timing shorter than this is repeated within one sample
SAY_EVERY = 10  # rounds, where no terminal redraws a line
TOLERANCE = 0.02  # a median is known where its interval reaches no further than this share of it

EXTERNAL = b"\n\x08location"  # the key of a tensor in another file, as ONNX stores it


class PackError(Exception):
    """The pack is damaged, or a model of it cannot be run here."""


def warm_timer(forward: Callable[[int], float]) -> Callable[..., float]:
    """Warm up, and return a function that times one forward pass, seconds.

    Every timing comes right after a pass of the same model: straight after another, larger model a small one was
    measured up to 1.6 times slower than in steady use. That pass is untimed; `is_next=True`: the last timing was of
    this model, too.

    `forward` does so many passes and returns the seconds of one.
    """
    fastest, calm = math.inf, 0
    for _ in range(LONGEST_WARM_UP):
        once = forward(1)
        calm = 0 if once < STILL_FALLING * fastest else calm + 1
        fastest = min(fastest, once)
        if calm == WARM_UP:
            break
    repeats = max(1, math.ceil(SHORTEST_S / max(fastest, 1e-6)))

    def timed(*, is_next: bool = False) -> float:
        if not is_next:
            forward(1)
        return forward(repeats)

    return timed


def runner(path: Path, images: Any, threads: int, provider: str) -> Callable[[], float]:
    """A function that times one forward pass of a model, seconds; a PackError: it cannot be loaded and run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    feed = {"images": images}
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        session.run(["logits"], feed)
    except Exception as error:  # onnxruntime's errors have no base of their own
        words = " ".join(str(error).split())[:300]
        raise PackError(f"{path.name}: onnxruntime cannot load and run it: {words}") from error

    def forward(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            session.run(["logits"], feed)
        return (time.perf_counter() - started) / times

    return warm_timer(forward)


def model_path(folder: Path, name: str) -> Path:
    """The file of a model; a pack may be a stranger's: a PackError where it would be read from elsewhere."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise PackError(f"{name}: outside of the pack")
    if not path.is_file():
        raise PackError(f"{name}: missing")
    if EXTERNAL in path.read_bytes():
        raise PackError(f"{name}: its weights are in another file; a pack's models are whole")
    return path


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """95 % confidence interval of the median by order statistics; the range of fewer than 6 samples."""
    ordered, n = sorted(samples), len(samples)
    below, rank = 0.0, 0
    while rank < n // 2 and below + math.comb(n, rank) / 2**n <= 0.025:
        below += math.comb(n, rank) / 2**n
        rank += 1
    first = max(0, rank - 1)
    return ordered[first], ordered[n - 1 - first]


def is_noisy(samples: Sequence[float]) -> bool:
    """Whether the median is not known within 2 %."""
    middle, (low, high) = statistics.median(samples), interval(samples)
    return max(high - middle, middle - low) > TOLERANCE * middle


def load_average() -> float | None:
    """Of the last minute; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_models(folder: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What models.json holds, and (digest, file) of the reference and of every model; a PackError: it is damaged."""
    try:
        listed = json.loads((folder / "models.json").read_text(encoding="utf-8"))
        shape = [listed["batch"], *listed["image_shape"]]
        named = [(str(m["digest"]), str(m["file"])) for m in (listed["reference"], *listed["models"])]
        if not (len(named) > 1 and len(shape) == 4 and all(type(side) is int and side > 0 for side in shape)):
            raise PackError("models.json: damaged: no model, or no sizes of images")
        return {"run": listed["run"], "weights": listed.get("weights"), "shape": shape}, named
    except FileNotFoundError as error:
        raise PackError("models.json: missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else error
        raise PackError(f"models.json: damaged: {words}") from error


def tell(text: str, *, is_last: bool) -> None:
    """Progress: a line that is redrawn on a terminal, lines of their own elsewhere."""
    is_drawn = sys.stderr.isatty()
    sys.stderr.write(f"\r{text:<40}" + "\n" * is_last if is_drawn else f"{text}\n")
    sys.stderr.flush()


def measure(folder: Path, threads: int, rounds: int, most_rounds: int, provider: str) -> dict[str, Any]:
    """Everything that results.json holds; a PackError: the pack is damaged, or a model cannot be run."""
    listed, named = read_models(folder)
    images = np.random.default_rng(0).standard_normal(listed["shape"]).astype(np.float32)
    before = load_average()
    reference, *runners = (runner(model_path(folder, file), images, threads, provider) for _, file in named)
    models = named[1:]
    ratios: list[list[float]] = [[] for _ in models]
    references: list[float] = []
    for done in range(max(rounds, most_rounds)):
        wide = [i for i in range(len(models)) if done < rounds or is_noisy(ratios[i])]
        if not wide:
            break
        random.Random(done).shuffle(wide)  # nobody is always after the same one
        references.append(reference())
        for i in wide:
            seconds, later = runners[i](), reference()
            ratios[i].append(seconds / math.sqrt(references[-1] * later))
            references.append(later)
        if sys.stderr.isatty() or done % SAY_EVERY == 0:
            tell(f"round {done + 1}: {len(wide):>3} of {len(models)} models", is_last=False)
    tell(f"{max(map(len, ratios))} rounds", is_last=True)
    reference_ms = 1e3 * statistics.median(references)
    points = []
    for (digest, _), found in zip(models, ratios, strict=True):
        times = [reference_ms * ratio for ratio in found]
        half = max(1, len(times) // 2)
        points.append(
            {
                "digest": digest,
                "latency_ms": statistics.median(times),
                "latency_ci_ms": list(interval(times)),
                "passes_ms": [statistics.median(times[:half]), statistics.median(times[-half:])],
                "rounds": len(times),
                "noisy": is_noisy(times),
            }
        )
    return {
        "schema_version": 1,
        "run": listed["run"],
        "weights": listed["weights"],
        "device": processor(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "runtime": f"onnxruntime {onnxruntime.__version__} {provider}",
        "python": platform.python_version(),
        "batch": listed["shape"][0],
        "threads": threads,
        "reference_ms": reference_ms,
        "load_average": [before, load_average()],
        "points": points,
    }


def figures(found: dict[str, Any]) -> list[str]:
    """What was measured, a line a model: milliseconds per batch with the 95 % interval of the median."""
    width = max(len(point["digest"]) for point in found["points"])
    lines = [f"{found['runtime']}, batch of {found['batch']}, threads: {found['threads']}, {found['device']}"]
    for point in found["points"]:
        low, high = point["latency_ci_ms"]
        times = f"{point['latency_ms']:.3f} ms / batch ({low:.3f} to {high:.3f})"
        lines.append(f"{point['digest']:{width}}  {times}" + "  ~" * point["noisy"])
    noisy = sum(point["noisy"] for point in found["points"])
    return [*lines, f"{len(found['points'])} models, {noisy} not known within 2 % (~)"]


def main() -> None:
    """Measure, write results.json, and say so."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of the runtime (default 1)")
    parser.add_argument("--rounds", type=int, default=15, help="in which every model is timed (default 15)")
    parser.add_argument("--most-rounds", type=int, default=60, help="for what is not known within 2 %% (default 60)")
    parser.add_argument("--provider", default="CPUExecutionProvider", help="execution provider of onnxruntime")
    given = parser.parse_args()
    if min(given.threads, given.rounds) < 1:
        parser.error("--threads and --rounds are whole numbers from 1 on")
    if given.provider not in onnxruntime.get_available_providers():
        parser.error(f"--provider: here are {', '.join(onnxruntime.get_available_providers())}")
    target = folder / "results.json"
    try:
        found = measure(folder, given.threads, given.rounds, given.most_rounds, given.provider)
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except (PackError, OSError) as error:
        sys.stderr.write(f"error: {error}\nhint: copy the folder from where `latency pack` wrote it again\n")
        sys.exit(2)
    sys.stdout.write("".join(f"{line}\n" for line in [*figures(found), f"written to {target}"]))


if __name__ == "__main__":
    main()
