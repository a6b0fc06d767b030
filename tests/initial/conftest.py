"""A teacher that several modules start from, trained once."""

import pytest
import torch
from safetensors.torch import save_file
from small_runs import digits, one_thread
from timm.models.vision_transformer import VisionTransformer


@pytest.fixture(scope="session")
def teacher():
    """A plain ViT of the space's greatest size, trained for some seconds on the digits."""
    torch.manual_seed(0)
    shape = {"img_size": 8, "patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    model = VisionTransformer(**shape, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    train = digits().train
    with one_thread():
        for step in range(500):
            chosen = slice(64 * step % 960, 64 * step % 960 + 64)
            labels = torch.from_numpy(train.labels[chosen].copy())
            loss = torch.nn.functional.cross_entropy(model(train.normalized(chosen)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def spec(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    save_file(teacher.state_dict(), folder / "teacher.safetensors")
    return f"file:{folder / 'teacher.safetensors'}"
