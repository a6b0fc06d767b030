"""Malformed inputs for `fuzz.py`, each made from a random generator alone: files in a folder, and a command line."""

import functools
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
RUNS = [ROOT / "tests" / "fixtures" / name for name in ("old_run", "old_supernets")]
OWN_RUN = ROOT / "results" / "fuzz" / "run"
POLICY_WORDS = (
    "rand-m5-n1 augmix-m3 original rand-m5-n0 rand-m-5 v0r 3a rand-mstd augmix-w0 rand-m20-p1 rand-m9-mstd1e9 "
    "augmix-m-1 rand-n2-tweights originalr-mstd0.5 rand-inc1-mmax0 augmix-d0-b1"
)
POLICIES = POLICY_WORDS.split()
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
    import nas.jobs.retrain as retrain
    import nas.jobs.trust as trust
    import nas.latency.command as command

    jobs.stages.train = jobs.several.run = jobs.forecast = nas.cli.doctor.diagnose = _stop
    trust.inherited_top1 = retrain.inherited_top1 = _stop
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


@functools.cache
def _commands() -> dict[tuple[str, ...], list[Any]]:
    """Every command of the product with its parameters, as click knows them."""
    import typer

    from nas.cli.app import app

    found: dict[tuple[str, ...], list[Any]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))
        if not hasattr(command, "commands"):
            found[path] = command.params

    walk(typer.main.get_command(app), ())
    return found


def flags(rng: random.Random, folder: Path) -> Case:
    """Commands with odd arguments and options."""
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "d").mkdir()
    (folder / "f.txt").write_text("text\n")
    words = (
        "tiny.yaml",
        "d",
        "f.txt",
        "missing",
        "",
        ".",
        "/",
        "/dev/null",
        "a" * 300,
        "a\nb",
        "...",
        "..",
        "-",
        str(RUNS[0]),
        "knee",
        *ODD,
    )
    command, parameters = rng.choice(sorted(_commands().items()))
    given: list[str] = [*command]
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            fitting = "tiny.yaml" if parameter.name == "space" else str(RUNS[0])
            given.append(fitting if rng.random() < 0.6 else rng.choice(words))
        elif rng.random() < (0.9 if parameter.required else 0.12) and parameter.name not in (
            "help",
            "ray_address",
            "storage",
        ):
            name = rng.choice(parameter.opts)
            given.append(name if parameter.is_flag else f"{name}={rng.choice(words)}")
    if rng.random() < 0.1:
        given.insert(
            rng.randrange(len(given) + 1), rng.choice(("--", "-", "--x", "-q", "--debugg", "--set", "--version"))
        )
    if command == ("report",) or given[0] in ("search", "export", "retrain", "trust", "rank-layers"):
        given = [_copied(folder) if word == str(RUNS[0]) else word for word in given]
    return Case(arguments=tuple(given), may_write=("r", "old_run"))


def _copied(folder: Path) -> str:
    if not (folder / "old_run").exists():
        shutil.copytree(RUNS[0], folder / "old_run")
    return "old_run"


def damaged_run(rng: random.Random, folder: Path) -> Case:
    """A run's folder in which something is missing, torn, exchanged or of something else."""
    source = rng.choice(RUNS)
    run = folder / "run"
    shutil.copytree(source, run)
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != "fuzzed")
        weights = [0.2 if path.suffix in (".safetensors", ".csv") else 1.0 for path in files]
        (path,) = rng.choices(files, weights)
        match rng.randrange(8):
            case 0:
                path.unlink()
            case 1:
                path.unlink()
                path.mkdir()
            case 2:
                path.write_bytes(spoiled(path.read_bytes(), rng))
            case 3:
                shutil.copy(rng.choice([p for p in RUNS[source == RUNS[0]].rglob("*") if p.is_file()]), path)
            case 4:
                lines = path.read_bytes().split(b"\n")
                rng.shuffle(lines)
                path.write_bytes(b"\n".join(lines[: rng.randint(0, len(lines))]))
            case 5 | 6:
                path.write_bytes(_json_damage(path.read_bytes(), rng))
            case 7:
                path.write_text(mutated(path.read_bytes().decode(errors="replace"), rng), errors="surrogateescape")
    command = rng.choice(
        (
            ("status",), ("front",), ("report",), ("show", "knee"), ("compare", str(source)), ("search", "--workers=0"),
            ("export", "--pick=knee", "--to=out", "--formats=timm"), ("retrain", "--pick=knee", "--workers=0"),
            ("trust", "--workers=0"), ("rank-layers", "--images=2"), ("latency",), ("front", "--sort=top1"),
            ("status", "--format=table"), ("front", "--format=table"), ("front", "--format=csv"),
        )
    )  # fmt: skip
    name, *rest = command
    return Case(arguments=(name, "run", *rest), may_write=("run", "out"))


def _json_damage(content: bytes, rng: random.Random) -> bytes:
    """A JSON file, or lines of JSON, with values exchanged or keys lost."""
    lines = content.split(b"\n")
    i = rng.randrange(len(lines))
    whole = True
    try:
        values = json.loads(content)
    except ValueError:
        whole = False
        try:
            values = json.loads(lines[i])
        except ValueError:
            return spoiled(content, rng)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(values)
    if places:
        group, key = rng.choice(places)
        if rng.random() < 0.3 and isinstance(group, dict):
            del group[key]
        else:
            group[key] = rng.choice(
                (None, True, -1, 0, 1e300, 10**30, "x", "", [], {}, [1], {"a": 1}, float("nan"), "\0", "../x", "é")
            )
    text = json.dumps(values).encode()
    return text if whole else b"\n".join([*lines[:i], text, *lines[i + 1 :]])


@functools.cache
def _plain_weights() -> dict[str, Any]:
    """A plain ViT that fits the tiny space."""
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, embed_dim=24, depth=2, num_heads=3, num_classes=10
    )
    return dict(model.state_dict())


def weights(rng: random.Random, folder: Path) -> Case:
    """`--init file:` of weights that are damaged, or of none."""
    import torch
    from safetensors.torch import save_file

    (folder / "tiny.yaml").write_text(
        TINY.replace("num_heads: [1, 2], mlp_ratio: [1, 2]", "num_heads: [1, 2, 3], mlp_ratio: [1, 4]")
    )
    state = dict(_plain_weights())
    path = folder / rng.choice(("w.safetensors", "w.pth"))
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice(sorted(state))
        tensor = state[name]
        match rng.randrange(11):
            case 0:
                del state[name]
            case 1:
                state[name] = torch.full_like(tensor, rng.choice((float("nan"), float("inf"), 1e38)))
            case 2:
                state[name] = tensor.to(
                    rng.choice((torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64))
                )
            case 3:
                state[name] = tensor.flatten()
            case 4:
                state[name] = tensor[..., :-1].contiguous()
            case 5:
                state[name] = tensor[:0]
            case 6:
                state[name] = torch.zeros(())
            case 7:
                state[
                    name.replace(
                        "blocks.1",
                        rng.choice(
                            (
                                "blocks.x",
                                "blocks.999999999999999999999",
                                "blocks.-1",
                                "blocks.",
                                "blocks.2",
                                "blocks.1e3",
                            )
                        ),
                    )
                ] = state.pop(name)
            case 8:
                state[name] = tensor[None]
            case 9:
                state[
                    rng.choice(
                        (
                            "x",
                            "",
                            "blocks.x.y",
                            "blocks",
                            "blocks.0.attn.qkv.gamma",
                            "dist_token",
                            "head.weight",
                            "blocks.0.ls1.gamma",
                        )
                    )
                ] = tensor.clone()
            case 10:
                state = {f"{rng.choice(('module', 'model', 'é'))}.{key}": value for key, value in state.items()}
    if path.suffix == ".pth":
        content: Any = rng.choice(
            (state, {"model": state}, {"state_dict": state}, {"model": 3}, [1, 2], {"a": "b"}, list(state.values()))
        )
        torch.save(content, path)
    else:
        save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    if rng.random() < 0.25:
        path.write_bytes(spoiled(path.read_bytes(), rng))
    name = rng.choice((path.name,) * 9 + ("missing.pth", ".", "", "tiny.yaml"))
    return Case(arguments=("train", "tiny.yaml", "--run=r", *QUICK, f"--init=file:{name}", *_digits(folder, rng)))


def _digits(folder: Path, rng: random.Random) -> tuple[str, ...]:
    """A small folder of images, ten classes."""
    images = np.random.default_rng(0)
    for label in range(10):
        for i in range(8):
            path = folder / "images" / f"{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return ("--data=folder:images",)


def image_folder(rng: random.Random, folder: Path) -> Case:
    """A folder of images among which some are odd, and folders that are no data set."""
    (folder / "tiny.yaml").write_text(TINY)
    root = folder / "images"
    layout = rng.choice(("", "", "train", "train/x", "Train", "0/1/2", "é", "a b"))
    pixels = np.random.default_rng(rng.randrange(2**32))
    for label in range(rng.choice((0, 1, 2, 3, 3, 3, 4))):
        for i in range(rng.choice((0, 1, 6, 8, 12))):
            path = (
                root
                / layout
                / f"c{label}"
                / f"{i}.{rng.choice(('png', 'png', 'png', 'jpg', 'bmp', 'gif', 'tiff', 'webp', 'txt', 'svg'))}"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = rng.choice(("RGB", "RGB", "RGB", "L", "P", "RGBA", "1", "CMYK", "I;16", "F", "LA"))
            size = rng.choice(((8, 8), (8, 8), (1, 1), (9, 300), (2000, 1), (64, 48)))
            image = Image.fromarray(pixels.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
            file = io.BytesIO()
            kind = {"jpg": "JPEG", "tiff": "TIFF", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}.get(
                path.suffix[1:], "PNG"
            )
            try:
                (image.convert(mode) if mode != "I;16" else image.convert("I").convert("I;16")).save(file, kind)
            except (OSError, ValueError, KeyError):
                image.save(file, kind)
            content = file.getvalue()
            path.write_bytes(spoiled(content, rng) if rng.random() < 0.06 else content)
    root.mkdir(exist_ok=True)
    for _ in range(rng.choice((0, 0, 1, 2))):
        place = rng.choice([root, *(p for p in root.rglob("*") if p.is_dir())])
        match rng.randrange(6):
            case 0:
                (place / rng.choice(("notes.txt", ".DS_Store", "Thumbs.db", "x.png"))).write_bytes(rng.randbytes(20))
            case 1:
                (place / "link").symlink_to(rng.choice((".", "..", "/nonexistent", "link")))
            case 2:
                (place / rng.choice(("__MACOSX", "@eaDir", "test", "val", "Test", "empty"))).mkdir(exist_ok=True)
            case 3:
                (place / "dir.png").mkdir(exist_ok=True)
            case 4:
                os.mkfifo(place / "pipe.png")
            case 5:
                Path(os.fsdecode(bytes(place) + b"/\xff\xfe.png")).write_bytes(rng.randbytes(9))
    spec = rng.choice(
        ("folder:images",) * 6
        + (
            "folder:",
            "folder:images,images",
            "folder:missing",
            "folder:tiny.yaml",
            "images",
            "folder:images/c0",
            "parquet:images",
        )
    )
    more = []
    if rng.random() < 0.25:
        names = ("search_fraction", "test_fraction", "skip_bad_images", "skip_small_classes", "image_column")
        more = [f"--set=data.{rng.choice(names)}={odd(rng)}"]
    return Case(
        arguments=(
            "train",
            "tiny.yaml",
            "--run=r",
            *QUICK,
            f"--data={spec}",
            *more,
            *rng.choice(((), ("--skip-bad-images",))),
        )
    )


def parquet(rng: random.Random, folder: Path) -> Case:
    """Parquet files whose columns are odd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "tiny.yaml").write_text(TINY)
    rows = rng.choice((0, 1, 30, 30, 30, 60))
    pixels = np.random.default_rng(rng.randrange(2**32))

    def image() -> Any:
        if rng.random() < 0.02:
            return rng.choice((None, b"", b"x" * 30))
        file = io.BytesIO()
        Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()

    labels: Sequence[Any] = [i % 3 for i in range(rows)]
    match rng.randrange(10):
        case 0:
            labels = [str(label) for label in labels]
        case 1:
            labels = [label * 1.5 for label in labels]
        case 2:
            labels = [rng.choice((None, -1, 2**40, 0, 1)) for _ in labels]
        case 3:
            labels = [[label] for label in labels]
        case 4:
            labels = [label == 1 for label in labels]
        case 5:
            labels = [rng.choice((float("nan"), float("inf"), 0.0, 1.0)) for _ in labels]
        case 6:
            labels = [b"\xff" if label else b"a" for label in labels]
    blobs = [image() for _ in range(rows)]
    pictures: Any = rng.choice(
        (
            blobs,
            [{"bytes": blob, "path": None} for blob in blobs],
            [{"bytes": blob} for blob in blobs],
            ["x.png"] * rows,
            [1] * rows,
            [{"bytes": None, "path": "x.png"}] * rows,
        )
    )
    names = rng.choice(
        (("image", "label"),) * 6 + (("img", "labels"), ("x", "y"), ("image", "image"), ("", "label"), ("é", "label"))
    )
    table = pa.table([pa.array(pictures), pa.array(labels)], names=list(names))
    if rng.random() < 0.2:
        table = table.replace_schema_metadata(
            {
                "huggingface": rng.choice(
                    (
                        b"{",
                        b"[]",
                        b'{"info": {"features": {"label": {"names": ["a"], "_type": "ClassLabel"}}}}',
                        b"\xff",
                        b'{"info": 3}',
                    )
                )
            }
        )
    (folder / "p").mkdir()
    for name in rng.choice(
        (("train",), ("train", "test"), ("a", "b"), ("train-00000-of-00002", "train-00001-of-00002"))
    ):
        path = folder / "p" / f"{name}.parquet"
        pq.write_table(table, path)
        if rng.random() < 0.15:
            path.write_bytes(spoiled(path.read_bytes(), rng))
    spec = rng.choice(
        ("parquet:p",) * 5
        + (
            "parquet:p/train.parquet",
            "parquet:p/*.parquet",
            "parquet:",
            "parquet:p,p",
            "parquet:tiny.yaml",
            "parquet:missing",
            "folder:p",
        )
    )
    more = [f"--set=data.{rng.choice(('image_column', 'label_column'))}={odd(rng)}"] if rng.random() < 0.25 else []
    return Case(arguments=("train", "tiny.yaml", "--run=r", *QUICK, f"--data={spec}", *more))


def train(rng: random.Random, folder: Path) -> Case:
    """Whatever the checks let through: a step of a real training with it."""
    (folder / "tiny.yaml").write_text(TINY)
    from nas.settings import RunConfig

    recipe = RunConfig().train.model_dump(mode="json")
    words = {
        "auto_augment": POLICIES,
        "rule": ("sandwich", "single_path"),
        "draw": ("uniform", "stratified"),
        "distill": ("soft", "none"),
        "crop_scale": ("[0.1, 0.2]", "[1, 1]", "[5e-324, 1e-300]", "[1e-9, 1]"),
    }
    wrong = []
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        key = rng.choice([*words, *recipe])
        whole, numbers = ("0", "1", "2", "3", "7", "1000"), ("0", "1e-6", "0.3", "0.999", "1", "30", "5e-324", "1e9")
        values = words.get(key) or (whole if isinstance(recipe[key], int) or key == "epochs" else numbers)
        wrong.append(f"--set=train.{key}={rng.choice(values)}")
    return Case(
        arguments=("train", "tiny.yaml", "--run=r", *QUICK, *_digits(folder, rng), *wrong), may_write=("r",), works=True
    )


def terminal(rng: random.Random, folder: Path) -> Case:
    """Terminals that cannot show much."""
    environment = rng.choice(
        (
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"COLUMNS": "20"},
            {"COLUMNS": "1"},
            {"TERM": "dumb"},
            {"COLUMNS": "0"},
            {"PYTHONIOENCODING": "latin-1"},
        )
    )
    (folder / "spa cé.yaml").write_text(TINY + "é: 1\n")
    command = rng.choice(
        (
            ("front", str(RUNS[0]), "--format=table"),
            ("status", str(RUNS[0]), "--format=table"),
            ("show", str(RUNS[0]), "knee", "--format=table"),
            ("check", str(SPACES[0]), "--format=table"),
            ("check", "spa cé.yaml"),
            ("compare", *map(str, RUNS), "--format=table"),
            ("--help",),
            ("run", "--help"),
            ("front", str(RUNS[0]), "--format=csv"),
            ("check", "\udce9.yaml"),
        )
    )
    return _Process(arguments=command, environment=tuple(environment.items()), works=rng.random() < 0.5)


@dataclass(frozen=True, kw_only=True)
class _Process(Case):
    """A command in a process of its own; `works`: its output goes to a reader that leaves."""

    def run(self) -> int:
        """Run it."""
        command = [sys.executable, str(ROOT / "search.py"), *(os.fsencode(word) for word in self.arguments)]
        environment = {**os.environ, **dict(self.environment)}
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE if self.works else None)
        if child.stdout is not None:
            child.stdout.close()
        code = child.wait()
        return 0 if self.works and code in (0, 1, 141) else code  # 1 is what click gives where the reader has left


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {
    "space": space,
    "document": document,
    "settings": settings,
    "config": config,
    "flags": flags,
    "run": damaged_run,
    "weights": weights,
    "images": image_folder,
    "parquet": parquet,
    "train": train,
    "terminal": terminal,
}


def make(kind: str, rng: random.Random, folder: Path) -> Case:
    """An input of a kind, in an empty folder."""
    return KINDS[kind](rng, folder)
