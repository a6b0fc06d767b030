"""One malformed input: a command line, what it may write, and odd values to put into it."""

import functools
import os
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
RUNS = [ROOT / "tests" / "fixtures" / name for name in ("old_run", "old_supernets")]
TINY = """name: tiny
backbone: {image_size: 8, patch_size: 2, num_classes: auto, head_dim: 8}
embed_dim: [16, 24]
depth: [1, 2]
layers: {num_tokens: [16, 4], attention: [dynamic, static], num_heads: [1, 2], mlp_ratio: [1, 2]}
"""
QUICK = ("--epochs=1", "--device=cpu", "--set=train.batch_size=16", "--set=train.warmup_epochs=0")
ODD_WORDS = """
1e9 -1 0 1e-9 1e-300 1e300 9223372036854775807 9223372036854775808 1000000000000 .nan .inf -.inf nan inf true no null
~ '' abc '3' '1e3' [] {} [[1]] [1,1] [0] [a,b] {a:1} {} 1.5 0.1 0x10 0o17 1_000 1:30 2026-01-01 << = - ? * & ! % @ `
!!timestamp_x !!binary_x !!python/object/apply:os.system_[id] !!set_{a} !!omap_[a:_1] !!int_x !!float_x !!bool_x
!!null_x !!str_3 !!pairs_[a:_1] !foo_3 !!map_[1] !!seq_{a:_1} &a_[*a] *b "\\0" "\\u202e" "\\x1b[31m" é 日本 \U0001f600
../.. /etc/passwd file:x NaN Infinity 1e99999 -0 +1 2 3 7 64 100 1000 65536 0.5 1.0 dynamic glad
"""
LONG = ("[" * 500, "a" * 5000, "{a: " * 300)
ODD = (*(word.replace("_", " " if word[0] in "!&" else "_") for word in ODD_WORDS.split()), *LONG, " ", "1 2", "\t")
"""Values that hardly any key can have."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command line, and what of the product is left out when it runs."""

    arguments: tuple[str, ...]
    may_write: tuple[str, ...] = ()
    works: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def run(self) -> int:
        """Run it in this process; returns the exit code."""
        os.environ.update(self.environment)
        from nas.cli import main

        if not self.works:
            leave_out()
        return main(self.arguments)


def _stop(*_: Any, **__: Any) -> Any:
    raise SystemExit(0)


def leave_out() -> None:
    """Do not train, search, measure or connect: whatever stands before that is what is tried."""
    if "nas.jobs" not in sys.modules:
        return
    import nas.cli.doctor
    import nas.jobs as jobs
    import nas.latency.command as command

    jobs.stages.train = jobs.several.run = jobs.forecast = nas.cli.doctor.diagnose = _stop
    for name in ("trust", "retrain"):  # as attributes of their package these are functions
        sys.modules[f"nas.jobs.{name}"].inherited_accuracy = _stop  # type: ignore[attr-defined]
    sys.modules["nas.jobs.last_choice.finalists"].trained_jobs = _stop  # type: ignore[attr-defined]
    command._measure = command.design = _stop


def odd(rng: random.Random) -> str:
    """A value that hardly any key can have."""
    if rng.random() < 0.15:
        return str(
            rng.choice((rng.randint(-5, 5), rng.uniform(-2, 2), rng.randint(0, 2**70), 10 ** rng.uniform(-12, 12)))
        )
    return rng.choice(ODD)


@functools.cache
def keys() -> tuple[str, ...]:
    """Every key of the configuration and the space, dotted."""
    from nas.settings import RunConfig, flat_config

    space = (
        "name backbone backbone.family backbone.timm backbone.image_size backbone.patch_size backbone.in_chans "
        "backbone.num_classes backbone.head_dim backbone.class_token embed_dim depth layers layers.num_tokens "
        "layers.reducer layers.attention layers.hallucination_ratio layers.hallucination layers.num_heads "
        "layers.ffn_rank layers.mlp_ratio overrides rules rules.max_shared rules.max_reductions constraints "
        "constraints.max_macs constraints.max_params constraints.max_memory constraints.max_latency_ms seeds"
    )
    return (*flat_config(RunConfig().model_dump(mode="json")), "train", "data", "train.ffn_branches", *space.split())


def setting(rng: random.Random) -> str:
    """An argument of `--set`."""
    key = rng.choice(keys())
    if rng.random() < 0.1:
        key = rng.choice((key + "x", key[:-1], key.upper(), key + ".a", "", ".", "a.b.c.d", key.replace(".", "..")))
    return f"{key}={odd(rng)}" if rng.random() < 0.97 else key


def mutated(text: str, rng: random.Random) -> str:
    """A YAML or JSON text with a few things wrong."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        i = rng.randrange(len(lines))
        match rng.randrange(9):
            case 0:
                del lines[i]
                lines = lines or [""]
            case 1:
                lines.insert(i, rng.choice(lines))
            case 2:
                lines[i] = lines[i].replace("  ", "\t", 1) if rng.random() < 0.5 else " " + lines[i]
            case 3 | 4 | 5:
                parts = re.split(r"([^\w.\-]+)", lines[i])
                words = [k for k, part in enumerate(parts) if part.strip(" ,:[]{}\"'")]
                if words:
                    parts[rng.choice(words)] = odd(rng)
                lines[i] = "".join(parts)
            case 6:
                head, colon, _ = lines[i].partition(":")
                lines[i] = f"{head}{colon} {odd(rng)}"
            case 7:
                at = rng.randrange(len(lines[i]) + 1)
                lines[i] = (
                    lines[i][:at]
                    + rng.choice(("\0", "\x1b", "[", "}", ":", "#", "&a ", "*a", "\u2028", "\ufeff", "'"))
                    + lines[i][at:]
                )
            case 8:
                lines = lines[: i + 1]
    return "\n".join(lines)


def spoiled(content: bytes, rng: random.Random) -> bytes:
    """Bytes of a file with damage of the kind that disks, editors and copies do."""
    at = rng.randrange(len(content) + 1)
    match rng.randrange(8):
        case 0:
            return content[:at]
        case 1:
            return b""
        case 2:
            return content[:at] + rng.randbytes(rng.choice((1, 4, 64))) + content[at + 4 :]
        case 3:
            return b"\xef\xbb\xbf" + content
        case 4:
            return content.decode(errors="replace").encode("utf-16")
        case 5:
            return content[:at] + b"\0" * rng.choice((1, 100)) + content[at:]
        case 6:
            return rng.randbytes(rng.randint(1, 300))
        case _:
            return content + content


def encoded(text: str, rng: random.Random) -> bytes:
    """Mostly UTF-8."""
    content = text.encode("utf-8", "surrogateescape")
    return spoiled(content, rng) if rng.random() < 0.1 else content
