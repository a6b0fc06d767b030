"""Weights to start from, and recipes to train with."""

import functools
import random
from pathlib import Path
from typing import Any

from fuzz_inputs.case import QUICK, TINY, Case, spoiled
from fuzz_inputs.data import digits

POLICY_WORDS = (
    "rand-m5-n1 augmix-m3 original rand-m5-n0 rand-m-5 v0r 3a rand-mstd augmix-w0 rand-m20-p1 rand-m9-mstd1e9 "
    "augmix-m-1 rand-n2-tweights originalr-mstd0.5 rand-inc1-mmax0 augmix-d0-b1"
)
POLICIES = POLICY_WORDS.split()


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
    return Case(arguments=("train", "tiny.yaml", "--run=r", *QUICK, f"--init=file:{name}", *digits(folder, rng)))


def train(rng: random.Random, folder: Path) -> Case:
    """Whatever the checks let through: a step of a real training with it."""
    (folder / "tiny.yaml").write_text(TINY)
    from nas.settings import RunConfig

    recipe = RunConfig().train.model_dump(mode="json")
    words = {
        "auto_augment": POLICIES,
        "rule": ("sandwich", "single_path"),
        "draw": ("by_gene", "uniform", "stratified"),
        "distill": ("soft", "none"),
        "class_weights": ("none", "balanced"),
        "static_guidance": ("0", "0.999", "1e-9", "5e-324", "0.5"),
        "crop_scale": ("[0.1, 0.2]", "[1, 1]", "[5e-324, 1e-300]", "[1e-9, 1]"),
    }
    wrong = []
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        key = rng.choice([*words, *recipe])
        whole, numbers = ("0", "1", "2", "3", "7", "1000"), ("0", "1e-6", "0.3", "0.999", "1", "30", "5e-324", "1e9")
        values = words.get(key) or (whole if isinstance(recipe[key], int) or key == "epochs" else numbers)
        wrong.append(f"--set=train.{key}={rng.choice(values)}")
    if rng.random() < 0.3:
        wrong.append(
            rng.choice(
                ("--set=data.stored_size=9", "--set=data.stored_size=100", "--set=search.objectives=[balanced_top1]")
            )
        )
    return Case(
        arguments=("train", "tiny.yaml", "--run=r", *QUICK, *digits(folder, rng), *wrong), may_write=("r",), works=True
    )
