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
        wrong = [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("image_size", "patch_size", "in_chans", "head_dim")
            if getattr(self, name) < 1
        ]
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
