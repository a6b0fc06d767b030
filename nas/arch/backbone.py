"""The fixed part of a network: family, image and patch size, channels, classes, width of a head."""

from dataclasses import dataclass
from typing import Any, Literal

from nas.base import ArchitectureError


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

    def __post_init__(self) -> None:
        least = {"image_size": 1, "patch_size": 1, "in_chans": 1, "num_classes": 0, "head_dim": 1}
        given = {name: getattr(self, name) for name in least}
        wrong = [
            f"{name} must be {'at least ' + str(least[name]) if type(n) is int else 'a whole number'}, got {n!r}"
            for name, n in given.items()
            if type(n) is not int or n < least[name]
        ]
        if type(class_token := getattr(self, "class_token")) is not bool:  # noqa: B009 - it may come from a file
            wrong.append(f"class_token must be true or false, got {class_token!r}")
        if wrong:
            raise ArchitectureError("backbone: " + "; ".join(wrong))
        if self.image_size % self.patch_size:
            raise ArchitectureError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def num_patches(self) -> int:
        """Patch tokens of the image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patch tokens: 1 with a class token, else 0 (timm's word)."""
        return int(self.class_token)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}
