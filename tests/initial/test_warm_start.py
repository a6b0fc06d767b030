"""A supernet that starts from a trained plain ViT, and the table of how redundant that ViT is."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from factories import backbone as small_backbone
from safetensors.torch import save_file
from small_runs import command, digits, one_thread
from small_spaces import every_choice, randomise
from small_spaces import space as small_space
from timm.models.vision_transformer import VisionTransformer
from warm_space import SPACE

from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.backbone import Backbone
from nas.base.errors import CheckpointError, ConfigError
from nas.initial.ordering import order_by_importance
from nas.initial.warm_start import check_init, copy_supernet, warm_start
from nas.model.cuts import FACTOR
from nas.model.families.vit import Subnet
from nas.model.supernet import Supernet
from nas.runs.front import ParetoFront
from nas.space.space import parse_space
from nas.training.checkpoint import load_checkpoint
from nas.training.operators.frozen import FROZEN

CPU = torch.device("cpu")


def space():
    return parse_space(SPACE, "warm.yaml").with_num_classes(10)


def started(spec, *, ordered=False):
    supernet = Supernet(space()).eval()
    with one_thread():
        random = warm_start(supernet, spec, digits().train, ordered=ordered, device=CPU)
    return supernet, random


def top1(supernet, architecture):
    search = digits().search
    with torch.no_grad():
        logits = supernet(search.normalized(slice(0, len(search))), architecture)
    return 100 * float((logits.argmax(dim=1).numpy() == search.labels).mean())


@pytest.mark.parametrize("ordered", [False, True])
def test_the_dense_subnet_is_the_teacher_however_its_heads_and_channels_are_ordered(teacher, spec, ordered):
    supernet, _ = started(spec, ordered=ordered)
    images = digits().search.normalized(slice(0, 32))
    with torch.no_grad():
        assert torch.allclose(supernet.dense()(images), teacher(images), atol=2e-5, rtol=0)


def test_channels_are_rotated_where_that_is_asked_for_and_narrower_networks_are_there(spec):
    gains = [started(spec, ordered=ordered)[0].state_dict()["blocks.0.norm1.weight"] for ordered in (False, True)]
    assert (gains[1] == 1).all()
    assert not torch.equal(*gains)


@pytest.mark.parametrize(("changes", "is_whole"), [((), True), (("mlp_ratio: [1, 2]", "mlp_ratio: [1, 3]"), False)])
def test_cuts_are_fitted_and_ordered_for_that_where_the_start_has_every_size(spec, monkeypatch, changes, is_whole):
    asked = []

    def order(*given, fitted, **others):
        asked.append(fitted)
        return order_by_importance(*given, fitted=fitted, **others)

    monkeypatch.setattr(sys.modules["nas.initial.warm_start"], "order_by_importance", order)
    text = SPACE.replace(*changes) if changes else SPACE
    supernet = Supernet(parse_space(text, "warm.yaml").with_num_classes(10)).eval()
    with one_thread():
        warm_start(supernet, spec, digits().train, ordered=True, device=CPU)
    assert asked == [is_whole]
    assert any(name.endswith(FACTOR) for name in supernet.state_dict()) == is_whole


@pytest.mark.parametrize("ordered", [False, True])
def test_a_space_whose_widths_grow_starts_at_the_teacher(teacher, spec, ordered):
    text = SPACE.replace("layers:", "layers:\n  embed_dim: [0, 64]", 1)
    grown = parse_space(text, "grown.yaml").with_num_classes(10)
    supernet, images = Supernet(grown).eval(), digits().search.normalized(slice(0, 32))
    with one_thread(), torch.no_grad():
        warm_start(supernet, spec, digits().train, ordered=ordered, device=CPU)
        assert torch.allclose(supernet.dense()(images), teacher(images), atol=2e-5, rtol=0)
        rng, widened = np.random.default_rng(0), 0
        for architecture in (grown.sample(rng) for _ in range(20)):
            widened += architecture.widths[-1] == 64
            assert torch.equal(supernet(images, architecture), supernet.extract(architecture)(images))
    assert widened > 3


def test_operators_start_near_the_teacher_and_random_ones_do_not(spec):
    supernet, random = started(spec)
    plain = space().largest()
    accuracy = top1(supernet, plain)
    assert accuracy > 75
    assert not [name for name in random if "static_map_16" in name or "mlp." in name]
    for gene, value, lost in (("attention", "static", 45), ("ffn_rank", 0.5, 30), ("hallucination_ratio", 0.34, 45)):
        changed = space().decode({**space().encode(plain), f"layers.00.{gene}": value})
        assert changed != plain
        assert top1(supernet, changed) > accuracy - lost, gene
    fresh = Supernet(space()).eval()
    fresh.load_timm({name.removeprefix("x"): p for name, p in supernet.dense().state_dict().items()})
    static = space().decode({**space().encode(plain), "layers.00.attention": "static"})
    low = space().decode({**space().encode(plain), "layers.00.ffn_rank": 0.5})
    assert top1(fresh, low) < top1(supernet, low)
    assert top1(fresh, static) <= top1(supernet, static) + 2


def test_a_run_starts_from_weights_once_and_resumes_without_them(spec, tmp_path):
    file, run = tmp_path / "warm.yaml", tmp_path / "run"
    file.write_text(SPACE)
    arguments = (
        "train", str(file), "--run", str(run), f"--init={spec}", "--epochs=1", "--device=cpu", "--set=depth=[1, 2]",
        "--set=train.batch_size=256", "--set=init_ordered=true",
    )  # fmt: skip
    done = command(*arguments)
    assert done.code == 0, done.stderr
    assert "weights of the operators start at random" in done.stderr
    assert "4 steps from a trained start may lose more than they give; --epochs 100 paid elsewhere" in done.stderr
    again = command(*arguments)
    assert again.code == 0
    assert "start at random" not in again.stderr


def test_with_frozen_matrices_a_run_keeps_those_of_its_start_and_without_a_start_there_is_none(spec, tmp_path):
    file, run = tmp_path / "warm.yaml", tmp_path / "run"
    file.write_text(SPACE)
    frozen = ("--set=train.trainable=head_and_norms", "--epochs=1", "--device=cpu", "--set=train.batch_size=256")
    refused = command("train", str(file), "--run", str(run), *frozen)
    assert refused.code == 2
    assert "train.trainable head_and_norms: the matrices would stay random" in refused.stderr
    assert not run.exists()
    done = command("train", str(file), "--run", str(run), f"--init={spec}", *frozen)
    assert done.code == 0, done.stderr
    first, _ = started(spec, ordered=True)
    trained = load_checkpoint(run / "supernet", expected={}).group("ema")
    names = [name for name in trained if FROZEN.fullmatch(name)]
    assert len(names) == 1 + 4 * len(space().layers)
    stored = first.state_dict()
    assert all(torch.equal(trained[name], stored[name]) for name in names)
    assert not torch.equal(trained["norm.weight"], stored["norm.weight"])


def test_weights_that_do_not_fit_are_misuse_and_leave_nothing(spec, tmp_path):
    file, run = tmp_path / "warm.yaml", tmp_path / "run"
    file.write_text(SPACE.replace("embed_dim: [16, 24]", "embed_dim: 16"))
    done = command("train", str(file), "--run", str(run), f"--init={spec}")
    assert done.code == 2
    assert "does not fit into" in done.stderr
    assert not run.exists()


def test_a_timm_folder_whose_weights_are_no_numbers_is_refused_before_anything_is_written(tmp_path):
    space_file, folder = tmp_path / "warm.yaml", tmp_path / "vit"
    space_file.write_text(SPACE)
    shape = {"img_size": 8, "patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **shape)
    model.blocks[0].mlp.fc1.bias.data[0] = torch.nan
    timm.models.save_for_hf(model, str(folder), model_args=shape, safe_serialization=True)
    refused = command("train", space_file, "--run", tmp_path / "new", f"--init=local-dir:{folder}")
    assert refused.code == 2
    assert f"--init local-dir:{folder}: " in refused.stderr
    assert "blocks.0.mlp.fc1.bias holds NaN or infinity" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_a_run_whose_weights_are_no_numbers_starts_nothing(monkeypatch):
    weights = {"norm.weight": torch.tensor([1.0, torch.inf]), "steps": torch.tensor([1])}
    module = sys.modules["nas.initial.warm_start"]  # its package has a function of this name
    monkeypatch.setattr(module, "trained_weights", lambda _: weights)
    monkeypatch.setattr(module.RunDirectory, "open", lambda path: path)
    with pytest.raises(ConfigError, match=r"--init run: NaN or infinity in norm.weight"):
        copy_supernet(Supernet(space()), Path("run"))


REGISTERS = ({"class_token": False, "reg_tokens": 3}, {"class_token": False, "reg_tokens": 3, "global_pool": "avg"})
OPTIONS = {
    "registers": REGISTERS,
    "average of normed tokens": ({"pool": "avg", "final_norm": "before"}, {"global_pool": "avg", "fc_norm": False}),
    "no last norm": ({"final_norm": "none"}, {"final_norm": False}),
    "CLIP": ({"norm_pre": True}, {"pre_norm": True}),
}


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS.values(), ids=OPTIONS)
def test_a_vit_of_every_kind_starts_a_supernet_that_has_its_logits(tmp_path, ours, theirs):
    shape = {"img_size": 8, "patch_size": 2, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    model = VisionTransformer(**shape, num_classes=10, **theirs).eval()
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    fixed = Backbone(image_size=8, patch_size=2, head_dim=8, num_classes=10, **ours)
    domain = every_choice(num_tokens=(16, 4), reducer=("pool",), num_heads=(1, 3), mlp_ratio=(1.0, 2.0))
    supernet = Supernet(small_space(domain, backbone=fixed, embed_dim=(16, 24), depth=(2,))).eval()
    warm_start(supernet, f"file:{tmp_path / 'w.pth'}", digits().train, ordered=True, device=torch.device("cpu"))
    plain = LayerChoice(num_tokens=16, num_heads=3, mlp_ratio=2)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for convolves in (False, True):  # as the identity
        largest = Architecture(embed_dim=24, layers=(plain, replace(plain, ffn_conv=convolves)))
        with torch.no_grad():
            assert torch.allclose(supernet(images, largest), model(images), atol=1e-5)


def test_convolutions_have_to_be_searched_where_the_start_has_some(tmp_path):
    layer, fixed = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2, ffn_conv=True), small_backbone()
    randomise(begun := Subnet(fixed, Architecture(embed_dim=16, layers=(layer,) * 2)))
    torch.save(begun.state_dict(), tmp_path / "w.pth")
    spec = f"file:{tmp_path / 'w.pth'}"
    domain = every_choice(num_tokens=(16,), num_heads=(1, 2), mlp_ratio=(1.0, 2.0))
    assert check_init(small_space(domain, embed_dim=(16,), depth=(2,)), spec) is None
    without = small_space(replace(domain, ffn_conv=(False,)), embed_dim=(16,), depth=(2,))
    with pytest.raises(CheckpointError, match=r"dwconv.weight: no network of the space has it: set layers.ffn_conv"):
        check_init(without, spec)


def test_a_search_for_agreement_needs_no_training_and_says_what_it_leaves_out(spec, tmp_path):
    file, run = tmp_path / "warm.yaml", tmp_path / "run"
    file.write_text(SPACE)
    asked = ("run", file, "--run", run, f"--init={spec}", "--epochs=0", "--trials=6", "--device=cpu", "--workers=0")
    asked = (*asked, "--set=search.objectives=[agreement,macs]")
    refused = command(*asked, "--finalists=4")
    assert refused.code == 2
    assert "neither agreement nor" in refused.stderr
    done = command(*asked)
    assert done.code == 0, done.stderr
    assert "off: agreement needs all images" in done.stderr
    front = ParetoFront.from_run(run)
    best = max(front.points, key=lambda point: point.measurement.values["agreement"])
    assert [objective.metric.name for objective in front.objectives] == ["agreement", "macs"]
    assert 50 < best.measurement.values["agreement"] <= 100.001


def test_a_start_without_the_classes_of_the_data_gets_a_classifier_of_them(teacher, tmp_path):
    weights = {name: value for name, value in teacher.state_dict().items() if not name.startswith("head.")}
    save_file(weights, tmp_path / "features.safetensors")
    supernet, random = started(f"file:{tmp_path / 'features.safetensors'}", ordered=True)
    assert not [name for name in random if name.startswith("head.")]
    assert top1(supernet, space().largest()) > 75
    narrow = space().decode({**space().encode(space().largest()), "embed_dim": 16})
    assert top1(supernet, narrow) > 40
