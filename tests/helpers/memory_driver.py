"""Train and measure on images three times as large as the memory of this process, which may not have more.

    python memory_driver.py SPEC SIDE FOLDER

RLIMIT_DATA limits private memory (heap, stacks, anonymous maps), not files that are mapped to be read. It also counts
what is reserved and never touched (1 GB once torch is imported), so what is really used (RssAnon) is watched, too.
"""

import json
import resource
import sys
import threading
import time
from pathlib import Path

import kornia.augmentation  # noqa: F401 - before the limit, as is torch
import numpy as np
import torch

from nas.data.loader import load_images
from nas.evaluation.accuracy import count_correct
from nas.model.supernet import Supernet
from nas.settings.config import DataConfig, TrainConfig
from nas.space.space import parse_space
from nas.training.trainer import SupernetTrainer

SPACE = """
name: large_images
backbone: {image_size: SIDE, patch_size: 32, num_classes: auto, head_dim: 8}
embed_dim: [16]
depth: [1]
layers: {attention: [dynamic], num_heads: [1, 2], mlp_ratio: [1]}
"""
ROOM = 400 * 2**20  # beside what Python, torch and the rest take before an image is seen


def status_bytes(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def watch(seen: list[int]) -> None:
    while True:
        seen[0] = max(seen[0], status_bytes("RssAnon"))
        time.sleep(0.02)


def main(spec: str, side: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.ones(2, 2).matmul(torch.ones(2, 2))
    most = [0]
    threading.Thread(target=watch, args=(most,), daemon=True).start()
    limit = status_bytes("VmData") + ROOM
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    data, test = load_images(DataConfig(spec=spec), side, 0)
    stored = sum(path.stat().st_size for path in folder.glob("cache/*.images"))
    try:
        np.ones(stored, np.uint8)
        is_limited = False
    except MemoryError:
        is_limited = True
    space = parse_space(SPACE.replace("SIDE", str(side)), "space.yaml").with_num_classes(data.info.num_classes)
    config = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0)
    setup = {"seed": 0, "device": torch.device("cpu"), "precision": "fp32", "directory": folder / "weights"}
    trainer = SupernetTrainer(Supernet(space, seed=0), data.train, config, **setup)
    trainer.run(until=20)
    subnet = trainer.trained().extract(space.smallest())
    right = [
        len(count_correct(subnet, images, batch_size=64, device=torch.device("cpu"), precision="fp32"))
        for images in (data.search.part(0, 640), test.open().part(0, 640))
    ]
    values = {
        "used": most[0],
        "room": ROOM,
        "stored": stored,
        "is_limited": is_limited,
        "measured": right,
        "digest": trainer.digest(),
    }
    sys.stdout.write(json.dumps(values))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
