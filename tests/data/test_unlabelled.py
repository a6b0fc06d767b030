"""`images:DIR`: a folder of photographs that nobody has sorted."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from small_runs import command
from warm_space import SPACE

from nas.base.errors import DataError
from nas.data.folder_source import UNLABELLED
from nas.data.loader import load_images
from nas.runs.front import ParetoFront
from nas.settings.config import DataConfig


def photographs(folder, count=60):
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"trip {i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return folder


def test_images_below_a_folder_are_of_one_class_in_every_split(tmp_path):
    data, test = load_images(DataConfig(spec=f"images:{photographs(tmp_path)}"), 8, seed=0)
    assert data.info.class_names == (UNLABELLED,)
    assert len(data.train) + len(data.search) + len(test.open()) == 60
    assert not data.search.labels.any()


def test_a_folder_without_images_and_one_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no image in"):
        load_images(DataConfig(spec=f"images:{tmp_path}"), 8, seed=0)
    with pytest.raises(DataError, match="no such folder"):
        load_images(DataConfig(spec=f"images:{tmp_path / 'photos'}"), 8, seed=0)
    with pytest.raises(DataError, match="a path must follow images:"):
        load_images(DataConfig(spec="images:"), 8, seed=0)


def test_they_are_searched_by_agreement_with_a_trained_start_and_by_nothing_else(tmp_path):
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(img_size=8, patch_size=2, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=0)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    (tmp_path / "warm.yaml").write_text(SPACE)
    photographs(tmp_path / "photos")
    asked = ("run", tmp_path / "warm.yaml", "--data", f"images:{tmp_path / 'photos'}", "--run", tmp_path / "run")
    asked = (*asked, "--device=cpu", "--workers=0", "--trials=4", f"--init=file:{tmp_path / 'vit.safetensors'}")
    agreement = "--set=search.objectives=[agreement,macs]"
    for wrong in (("--epochs=0",), ("--epochs=1", agreement)):
        refused = command(*asked, *wrong)
        assert refused.code == 2
        assert "by agreement with a trained start alone" in refused.stderr
        assert not (tmp_path / "run").exists()
    done = command(*asked, "--epochs=0", agreement)
    assert done.code == 0, done.stderr
    values = [point.measurement.values["agreement"] for point in ParetoFront.from_run(tmp_path / "run").points]
    assert max(values) > 50
