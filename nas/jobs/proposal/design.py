"""Which of the shipped spaces suits images of a size and number, what is changed of it, and why: the text of a file."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from nas.settings import read_space_text

TRAINED = "timm:deit_tiny_patch16_224"
FEW = 20_000
"""Photographs to train on below which a start from a trained ViT is proposed: a rule of thumb, not a measurement."""
ENLARGED = 1.15  # times that an image may be enlarged: 28 px go into a space for 32
SCRATCH = {128: "small_128", 96: "small_96", 64: "small_64", 32: "cifar_small", 16: "cifar_small", 0: "digits"}
"""Shipped spaces that are trained from scratch, by their least side; of 16 to 27 px the 32 px one with patches of 2."""


def comment(text: str, indent: str = "") -> list[str]:
    """A text as lines of YAML that are comments."""
    return textwrap.wrap(text, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What is known of images before one is decoded, and of the machine: median shorter side, number, device."""

    side: int
    num_images: int
    on_cuda: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A shipped space and what becomes of it: `changes` are texts of its file and what stands there instead.

    `init` are the weights to start from, empty: random. `why` has a sentence for each choice.
    """

    base: str
    image_size: int
    patch_size: int
    init: str
    changes: tuple[tuple[str, str], ...]
    why: Mapping[str, str]

    def text(self, name: str, header: str) -> str:
        """The space's file: header lines, then the shipped one without its own."""
        body = read_space_text(self.base).partition("\nname: ")[2].partition("\n")[2]
        for before, after in self.changes:
            assert before in body, f"{self.base} has {before}"
            body = body.replace(before, after)
        lines = "".join(f"{line}\n" for text in header.splitlines() for line in comment(text))
        return f"{lines}name: {name}\n{body}"


def design_for(images: Images, *, from_scratch: bool = False) -> Design:
    """The space that suits the images; `from_scratch`: never a start from trained weights."""
    if not from_scratch and images.side * ENLARGED >= 128 and images.num_images < FEW:
        return _trained(images)
    least = next(side for side in SCRATCH if images.side * ENLARGED >= side)
    base = SCRATCH[least]
    image_size = least or 8
    tokens = "8x8 patches, the number at which every operator was measured (results/reference/mechanisms.csv)"
    changes: tuple[tuple[str, str], ...] = ()
    patch_size = {"cifar_small": 4, "digits": 2}.get(base, image_size // 8)
    if least == 16:
        patch_size, changes = 2, (("image_size: 32, patch_size: 4", "image_size: 16, patch_size: 2"),)
    if base == "digits":
        tokens, changes = "4x4 patches", (("num_classes: 10", "num_classes: auto"),)
    enlarged = f", enlarged by {image_size / images.side:.2f}" if images.side < image_size else ""
    reason = "trained ViTs are of larger images"
    if images.side * ENLARGED >= 128:
        reason = f"there are {images.num_images:,} images; below {FEW:,} it were trained ones, by a rule of thumb"
    if from_scratch:
        reason = "as --from-scratch says"
    why = {
        "image_size": f"the shorter side of half of the images is {images.side} px or more; the largest size of a "
        f"shipped space that they fill{enlarged}",
        "patch_size": tokens,
        "embed_dim": f"of `{base}`: small enough to train without trained weights; let a front that is at an edge "
        "of it say whether more pays",
        "init": reason,
    }
    return Design(base=base, image_size=image_size, patch_size=patch_size, init="", changes=changes, why=why)


def _trained(images: Images) -> Design:
    base, large = "deit_tiny", images.on_cuda and images.side * ENLARGED >= 224
    changes: tuple[tuple[str, str], ...] = (("num_classes: 1000", "num_classes: auto"),)
    if large:
        size = "the size that the weights were trained at"
    else:
        changes += (
            ("image_size: 224", "image_size: 128"),
            ("[196, 100, 49]", "[64, 36, 16]"),
            ("num_tokens: 196", "num_tokens: 64"),
        )
        size = "a third of the compute of 224 px, for which the weights' position embeddings are resampled"
        size += "" if images.side * ENLARGED < 224 else "; with CUDA it were 224"
    why = {
        "image_size": f"the shorter side of half of the images is {images.side} px or more; {size}",
        "patch_size": "that of the weights",
        "embed_dim": "DeiT-Ti, 192 wide and 12 deep, and what is smaller",
        "init": f"{images.num_images:,} images are few for a ViT from scratch: by a rule of thumb, below "
        f"{FEW:,} a trained one is where to start. timm downloads it, 23 MB; --from-scratch does without",
    }
    return Design(base=base, image_size=224 if large else 128, patch_size=16, init=TRAINED, changes=changes, why=why)
