"""The fixed part of a network: family, image and patch size, channels, classes, width of a head."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from nas.base import ArchitectureError

CHOICES = {
    "pool": ("", "token", "avg"),
    "final_norm": ("", "before", "after", "none"),
    "act": ("gelu", "gelu_tanh", "silu"),
    "positions": ("learned", "none"),
}
LATER = {
    "reg_tokens": 0, "pool": "", "final_norm": "", "norm_pre": False, "norm_eps": 1e-6, "act": "gelu", "key_tokens": 0,
    "positions": "learned",
}  # fmt: skip
"""Options that today's files need not say, with the values that they have then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """The part of every network that is not searched."""

    family: Literal["vit"] = "vit"  # which forward pass; `vit` is DeiT and every plain timm ViT
    timm: str = ""  # timm model name whose weights can seed the supernet; empty when there is none
    image_size: int  # height and width of the input, pixels
    patch_size: int  # height and width of a patch, pixels
    in_chans: int = 3  # colour channels of the input
    num_classes: int = 1000  # outputs of the classifier
    head_dim: int = 64  # channels per attention head
    class_token: bool = True  # whether a class token is classified; otherwise the mean of the patch tokens
    reg_tokens: int = 0  # register tokens, between the class token and the patches
    pool: Literal["", "token", "avg"] = ""  # what is classified; empty: the class token where there is one, else "avg"
    final_norm: Literal["", "before", "after", "none"] = ""  # the last norm and pooling; empty: "after" an average
    norm_pre: bool = False  # a norm before the first layer, as CLIP has it
    norm_eps: float = 1e-6  # epsilon of every LayerNorm
    act: Literal["gelu", "gelu_tanh", "silu"] = "gelu"  # activation of the feed-forward (timm's names)
    key_tokens: int = 0  # patch tokens that keys and values are of, where a layer has more; 0: all
    positions: Literal["learned", "none"] = "learned"  # what is added to the tokens before the first layer

    def __post_init__(self) -> None:
        least = {"image_size": 1, "patch_size": 1, "in_chans": 1, "num_classes": 0, "head_dim": 1, "reg_tokens": 0}
        least["key_tokens"] = 0
        given = {name: getattr(self, name) for name in least}
        wrong = [
            f"{name} must be {'at least ' + str(least[name]) if type(n) is int else 'a whole number'}, got {n!r}"
            for name, n in given.items()
            if type(n) is not int or n < least[name]
        ]
        switches = ((name, getattr(self, name)) for name in ("class_token", "norm_pre"))  # maybe of a file
        wrong += [f"{name} must be true or false, got {value!r}" for name, value in switches if type(value) is not bool]
        for name, words in CHOICES.items():
            if (word := getattr(self, name)) not in words:
                wrong.append(f"{name} must be one of {', '.join(filter(None, words))}, got {word!r}")
        if not (type(self.norm_eps) is float and 0 < self.norm_eps < 1):
            wrong.append(f"norm_eps must be a number above 0 and below 1, got {self.norm_eps!r}")
        if self.pool == "token" and not self.class_token:
            wrong.append("pool token needs class_token true")
        if self.key_tokens and self.num_prefix_tokens:
            wrong.append("key_tokens need class_token false and no reg_tokens: what is reduced is a grid")
        if self.key_tokens and math.isqrt(self.key_tokens) ** 2 != self.key_tokens:
            wrong.append(f"key_tokens must be a square number, got {self.key_tokens}")
        if wrong:
            raise ArchitectureError("backbone: " + "; ".join(wrong))
        if self.image_size % self.patch_size:
            raise ArchitectureError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.pool == ("token" if self.class_token else "avg"):  # said or not, it is the same network
            object.__setattr__(self, "pool", "")
        if self.final_norm == ("after" if self.pooling == "avg" else "before"):
            object.__setattr__(self, "final_norm", "")

    @property
    def num_patches(self) -> int:
        """Patch tokens of the image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patch tokens: class token and registers (timm's word)."""
        return self.class_token + self.reg_tokens

    def key_stride(self, num_tokens: int) -> int:
        """Side of the square of tokens that becomes a key in a layer of so many patch tokens; 1: all are keys.

        Raises:
            ArchitectureError: Their grid does not divide into as many squares as there are keys.
        """
        if not 0 < self.key_tokens < num_tokens:
            return 1
        side, keys = math.isqrt(num_tokens), math.isqrt(self.key_tokens)
        if side**2 != num_tokens or side % keys:
            text = f"{num_tokens} tokens are no grid that divides into key_tokens {self.key_tokens} (C17)"
            raise ArchitectureError(text)
        return side // keys

    @property
    def pooling(self) -> str:
        """What is classified: the class token ("token"), or the mean of the patch tokens ("avg")."""
        return self.pool or ("token" if self.class_token else "avg")

    @property
    def norm_place(self) -> str:
        """Where the last norm stands: "before" or "after" pooling, or "none"."""
        return self.final_norm or ("after" if self.pooling == "avg" else "before")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; options that came later are left out where they are as they always were."""
        fixed = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fixed.items() if LATER.get(name, ...) != value}
