"""Spaces, configurations and settings with mistakes in them."""

import os
import random
from pathlib import Path

from fuzz_inputs.case import SPACES, TINY, Case, encoded, keys, mutated, odd, setting


def space(rng: random.Random, folder: Path) -> Case:
    """A shipped space with mistakes in it."""
    text = mutated(rng.choice([*(path.read_text() for path in SPACES), TINY]), rng)
    (folder / "space.yaml").write_bytes(encoded(text, rng))
    return Case(arguments=("check", "space.yaml", *rng.choice(((), ("--format=table",), ("--format=csv",)))))


def document(rng: random.Random, folder: Path) -> Case:
    """YAML that is no space at all, and files that are no YAML."""
    path = folder / "space.yaml"
    content: str | bytes
    match rng.randrange(10):
        case 0:
            content = rng.randbytes(rng.randint(0, 2000))
        case 1:
            content = "a: &a [x, x]\n" + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(rng.randint(1, 20))
            )
        case 2:
            content = rng.choice("[{-?") * rng.choice((10, 1000, 100000)) + "\n"
        case 3:
            content = rng.choice((b"a", b"\n", b"a: 1\n", b"- ", b"\0", b"#")) * rng.choice((1000, 100_000, 20_000_000))
        case 4:
            path.mkdir()
            return Case(arguments=("check", "space.yaml"))
        case 5:
            target = rng.choice(("space.yaml", "/dev/zero", "/dev/null", "/", "missing", "/proc/self/mem"))
            path.symlink_to(target)
            return Case(arguments=("check", "space.yaml"))
        case 6:
            os.mkfifo(path)
            return Case(arguments=("check", "space.yaml"))
        case _:
            content = "\n".join(
                f"{rng.choice((*keys(), odd(rng))).split('.')[-1]}: {odd(rng)}" for _ in range(rng.randint(1, 12))
            )
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return Case(arguments=("check", "space.yaml"))


def settings(rng: random.Random, folder: Path) -> Case:
    """`--set` on a space that is right."""
    command = ("check", str(SPACES[0])) if rng.random() < 0.3 else ("train", "tiny.yaml", "--run=r", "--device=cpu")
    (folder / "tiny.yaml").write_text(TINY)
    wrong = [f"--set={setting(rng)}" for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    return Case(arguments=(*command, *wrong), may_write=())


def config(rng: random.Random, folder: Path) -> Case:
    """A configuration file with mistakes."""
    from nas.settings import RunConfig, dump_yaml

    (folder / "tiny.yaml").write_text(TINY)
    text = mutated(dump_yaml(RunConfig().model_dump(mode="json")), rng)
    (folder / "config.yaml").write_bytes(encoded(text, rng))
    return Case(arguments=("train", "tiny.yaml", "--run=r", "--config=config.yaml"))
