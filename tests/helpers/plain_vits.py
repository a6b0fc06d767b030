"""Weights of small plain ViTs on the grey 16 x 16 images of `factories.backbone`."""

import torch
from small_spaces import randomise
from timm.models.vision_transformer import VisionTransformer

HEAD_DIM = 8


def vit_weights(num_heads: int = 4, class_token: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of two layers."""
    model = VisionTransformer(
        img_size=16,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=HEAD_DIM * num_heads,
        depth=2,
        num_heads=num_heads,
        mlp_ratio=2,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
    )
    randomise(model, seed)
    return dict(model.state_dict())


def images(count: int = 8) -> torch.Tensor:
    """Noise."""
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))
