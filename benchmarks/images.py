"""Images per second from a stored file, warm and cold, beside timm's own loader on the same JPEGs.

    python benchmarks/images.py [--images 3000] [--size 224] [--rounds 5] [--threads 2]

A made-up folder of JPEGs (500 x 375, quality 90) is decoded once into a store, then read by rounds, interleaved: the
stored file while it is in the page cache (warm), and after `posix_fadvise(DONTNEED)` (cold; what came from the disk is
counted); and `create_loader` of timm, whose workers decode every JPEG, with the same transform (shorter side to the
size, centre, normalised). All give normalised float32 batches of 64, the images in a shuffled order.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tables import write_table
from timm.data import create_dataset, create_loader

from nas.data import ImageSet, load_images
from nas.settings import DataConfig

BATCH = 64
CLASSES = 10


def make_folder(root: Path, images: int) -> None:
    """Smooth pictures with some noise: files of about 40 kB, as photographs of this size are."""
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), 3)
        noise = rng.integers(-8, 9, (375, 500, 1))
        path = root / "train" / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def forget(paths: Iterable[Path]) -> None:
    """Let the kernel drop what it holds of these files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def from_store(images: ImageSet, seed: int) -> int:
    """One pass over the images."""
    order = np.random.default_rng(seed).permutation(len(images))
    return sum(len(images.normalized(order[start : start + BATCH])) for start in range(0, len(images), BATCH))


def from_timm(loader: Iterable[Any]) -> int:
    """One pass of timm's loader."""
    return sum(len(batch) for batch, _ in loader)


def timed(task: Callable[[], int]) -> tuple[int, float, float, float]:
    """Images, wall seconds, CPU seconds of this process and those that it started, and MB that it read from a disk."""

    def cpu_s() -> float:
        uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(use.ru_utime + use.ru_stime for use in uses)

    def disk_mb() -> float:
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(lines["read_bytes"]) / 1e6

    wall, cpu, disk = time.perf_counter(), cpu_s(), disk_mb()
    done = task()
    return done, time.perf_counter() - wall, cpu_s() - cpu, disk_mb() - disk


def main() -> None:
    """Make the folder, measure by rounds, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:  # on a disk: /tmp may be memory
        root, cache = Path(folder, "images"), Path(folder, "cache")
        os.environ["NAS_CACHE"] = str(cache)
        make_folder(root, asked.images)
        jpegs = sorted(root.rglob("*.jpg"))
        config = DataConfig(spec=f"folder:{root / 'train'}", test_fraction=0, search_fraction=0.01)
        first = timed(lambda: len(load_images(config, asked.size, 0)[0].train))
        time.sleep(3)  # until files are old enough to be known by their times

        def stored_images() -> ImageSet:
            return load_images(config, asked.size, 0)[0].train

        train = stored_images()
        again = timed(lambda: len(stored_images()))
        held = {"train": train}
        info = train.info
        del train
        loader = create_loader(
            create_dataset("folder", str(root), split="train"),
            (3, asked.size, asked.size),
            BATCH,
            is_training=True,
            no_aug=True,
            interpolation="bicubic",
            crop_pct=1.0,
            use_prefetcher=False,
            num_workers=asked.threads,
            mean=info.mean,
            std=info.std,
            persistent_workers=False,  # their CPU time counts when they end
        )
        stored = list(cache.glob("*.images"))

        def prepare_stored(*, cold: bool) -> None:
            held.clear()  # pages that are mapped stay in memory
            if cold:
                forget(stored)
            held["train"] = stored_images()

        ways: dict[str, tuple[Callable[[], None], Callable[[int], int]]] = {
            "stored, warm": (lambda: prepare_stored(cold=False), lambda round_: from_store(held["train"], round_)),
            "stored, cold": (lambda: prepare_stored(cold=True), lambda round_: from_store(held["train"], round_)),
            "timm create_loader, warm": (lambda: None, lambda _: from_timm(loader)),
            "timm create_loader, cold": (lambda: forget(jpegs), lambda _: from_timm(loader)),
        }
        from_store(held["train"], 0)
        found: dict[str, list[tuple[int, float, float, float]]] = {name: [] for name in ways}
        for round_ in range(asked.rounds):
            for name, (prepare, read) in ways.items():
                prepare()
                found[name].append(timed(lambda read=read, round_=round_: read(round_)))  # type: ignore[misc]
        found |= {"first command: decode and store": [first], "next command: find what is stored": [again]}
        rows = [
            {
                "way": name,
                "rounds": len(times),
                "images_per_s": round(statistics.median(done / wall for done, wall, *_ in times)),
                "images_per_cpu_s": round(statistics.median(done / cpu for done, _, cpu, _ in times)),
                "wall_s": round(statistics.median(wall for _, wall, *_ in times), 2),
                "cpu_s": round(statistics.median(cpu for _, _, cpu, _ in times), 2),
                "own_disk_mb": "" if "timm" in name else round(statistics.median(disk for *_, disk in times)),
            }
            for name, times in found.items()
        ]
        sizes = [sum(path.stat().st_size for path in paths) / 1e6 for paths in (jpegs, stored)]
    write_table(
        "images",
        rows,
        f"{asked.images} JPEGs of 500x375 ({sizes[0]:.0f} MB) to {asked.size} px ({sizes[1]:.0f} MB stored), batches "
        f"of {BATCH}, {asked.threads} threads or workers; medians of interleaved rounds",
    )


if __name__ == "__main__":
    main()
