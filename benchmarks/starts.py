"""Which of timm's plain ViTs a search can start from, each with random weights against timm's own network.

    python benchmarks/starts.py

All models of timm that are its `VisionTransformer`, hybrids with convolutions left out, are built as timm builds them
but for two layers and seven patches a side, so that all of it takes minutes on one core;
nothing is downloaded. The table says what a space has to set for each, the largest difference of the logits (of the
tokens after the last norm where the head is left out) over the largest of them, and why a model is refused. It is
written to results/reference/starts.csv and between the marks of docs/starts.md.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from tables import write_table
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from nas.arch import Backbone
from nas.base import ConfigError
from nas.initial import difference, facts_of, has_quick_gelu, left_out, plain_weights, settings_for, why_not_plain

PAGE = Path(__file__).resolve().parent.parent / "docs" / "starts.md"
DEPTH, SIDE = 2, 7
CLOSE = 1e-4  # of the greatest number: float32 in another order


def plain_names() -> list[str]:
    """Names of timm's models that are its `VisionTransformer` and no hybrid."""
    found = []
    for name in timm.list_models():
        if timm.models.model_entrypoint(name).__module__.rpartition(".")[2] in ("vision_transformer", "deit"):
            with torch.device("meta"):
                model = timm.create_model(name, depth=1)
            if isinstance(model, VisionTransformer) and not isinstance(model.patch_embed, HybridEmbed):
                found.append(name)
    return found


def small(name: str) -> Any:
    """The model with two layers and few patches, its weights random, whatever timm leaves at 0 or 1 too."""
    with torch.device("meta"):
        whole = timm.create_model(name, depth=1)
    patch, image = whole.patch_embed.patch_size[0], whole.patch_embed.img_size[0]
    size = SIDE * patch + image % patch
    model = timm.create_model(name, depth=DEPTH, img_size=size).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return model


def row(name: str) -> dict[str, Any]:
    """What a space sets for a model, how far its plain weights are from it, or why it is refused."""
    with torch.device("meta"):
        whole = timm.create_model(name, depth=1)
    about = {"model": name, "width": whole.embed_dim, "patch_size": whole.patch_embed.patch_size[0]}
    if reasons := why_not_plain(whole):
        return about | {"set": "", "difference": "", "note": "; ".join(reasons), "taken": "no"}
    model: nn.Module = small(name)
    plain = Backbone(image_size=16, patch_size=16)
    keys = settings_for(plain, facts := facts_of(model))
    fixed = Backbone(image_size=16, patch_size=16, **facts)
    try:
        far = difference(model, plain_weights(name, model.state_dict(), fixed, quick_gelu=has_quick_gelu(model)), fixed)
    except ConfigError as error:
        return about | {"set": "", "difference": "", "note": error.message, "taken": "no"}
    note = left_out(model) if far < CLOSE else "computes something else"
    said = " ".join(key.removeprefix("backbone.") for key in keys)
    return about | {"set": said, "difference": f"{far:.1e}", "note": note, "taken": "yes" if far < CLOSE else "no"}


def main() -> None:
    """Measure all, and write both tables."""
    rows = [row(name) for name in plain_names()]
    taken = sum(row["taken"] == "yes" for row in rows)
    write_table("starts", rows, f"{taken} of {len(rows)} plain ViTs of timm, {DEPTH} layers, {SIDE} x {SIDE} patches")
    lines = [
        f"{taken} of timm {timm.__version__}'s {len(rows)} plain ViTs can be taken; the greatest difference is "
        f"{max(float(row['difference']) for row in rows if row['taken'] == 'yes'):.1e}.",
        "",
        "| models | `--set backbone.` | note |",
        "|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for found in rows:
        groups.setdefault((found["taken"], found["set"], found["note"]), []).append(found["model"])
    for (answer, said, note), names in sorted(groups.items(), key=lambda group: (group[0][0] == "no", group[0])):
        keys = said.replace(" ", "<br>") or ("nothing" if answer == "yes" else "refused")
        lines.append(f"| {', '.join(names)} | {keys} | {note} |")
    before, _, rest = PAGE.read_text().partition("<!-- table -->\n")
    after = rest.partition("<!-- end -->\n")[2]
    PAGE.write_text(f"{before}<!-- table -->\n" + "\n".join(lines) + f"\n<!-- end -->\n{after}")


if __name__ == "__main__":
    main()
