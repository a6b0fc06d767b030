"""Times the ONNX models of this folder on this device. Needs Python 3.10 or later, numpy and onnxruntime, no more.

    python measure.py --threads 1

Every model is timed in turn with the reference model, whose drift is divided out; rounds go on until each median is
known within 2 % or `--most-rounds` are spent. Writes results.json beside the models.
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
TOLERANCE = 0.02  # a median is known where its interval reaches no further than this share of it

EXTERNAL = b"\n\x08location"  # the key of a tensor in another file, as ONNX stores it


def warm_timer(forward: Callable[[int], float]) -> Callable[[], float]:
    """Warm up, and return a function that times one forward pass, seconds.

    Every timing comes right after an untimed pass of the same model: straight after another, larger model
    a small one was measured up to 1.6 times slower than in steady use.

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

    def timed() -> float:
        forward(1)
        return forward(repeats)

    return timed


def runner(path: Path, images: Any, threads: int, provider: str) -> Callable[[], float]:
    """A function that times one forward pass of a model, seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    feed = {"images": images}

    def forward(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            session.run(["logits"], feed)
        return (time.perf_counter() - started) / times

    return warm_timer(forward)


def model_path(folder: Path, name: str) -> Path:
    """The file of a model; a pack may be a stranger's, so ends the program where it would be read from elsewhere."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        sys.exit(f"error: {name}: outside of the pack")
    if EXTERNAL in path.read_bytes():
        sys.exit(f"error: {name}: its weights are in another file; a pack's models are whole")
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


def measure(folder: Path, threads: int, rounds: int, most_rounds: int, provider: str) -> dict[str, Any]:
    """Everything that results.json holds."""
    listed = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    shape = [listed["batch"], *listed["image_shape"]]
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before = load_average()
    reference = runner(model_path(folder, listed["reference"]["file"]), images, threads, provider)
    models = listed["models"]
    runners = [runner(model_path(folder, model["file"]), images, threads, provider) for model in models]
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
        sys.stderr.write(f"\rround {done + 1}: {len(wide)} of {len(models)} models")
        sys.stderr.flush()
    sys.stderr.write("\n")
    reference_ms = 1e3 * statistics.median(references)
    points = []
    for model, found in zip(models, ratios, strict=True):
        times = [reference_ms * ratio for ratio in found]
        half = max(1, len(times) // 2)
        points.append(
            {
                "digest": model["digest"],
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
        "device": processor(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "runtime": f"onnxruntime {onnxruntime.__version__} {provider}",
        "python": platform.python_version(),
        "batch": listed["batch"],
        "threads": threads,
        "reference_ms": reference_ms,
        "load_average": [before, load_average()],
        "points": points,
    }


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
    found = measure(folder, given.threads, given.rounds, given.most_rounds, given.provider)
    target = folder / "results.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    noisy = sum(point["noisy"] for point in found["points"])
    sys.stdout.write(f"{target}: {len(found['points'])} models, {noisy} not known within 2 %\n")


if __name__ == "__main__":
    main()
