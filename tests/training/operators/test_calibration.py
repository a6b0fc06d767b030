"""What a calibration measures equals the definitions; what it starts changes the network least."""

from dataclasses import replace
from functools import partial

import plain_vits
import pytest
import torch
from factories import backbone
from small_spaces import every_choice, space
from torch import nn

from nas.arch.architecture import Architecture, LayerChoice
from nas.base.errors import DataError
from nas.initial.pretrained import plain_subnet
from nas.model.families.vit import Subnet
from nas.model.supernet import Supernet
from nas.training.operators import calibration as module
from nas.training.operators.calibration import calibrate, redundancy_rows, start_operators

HEADS, DIM = 3, plain_vits.HEAD_DIM


vit_weights = partial(plain_vits.vit_weights, num_heads=HEADS)
images = partial(plain_vits.images, 12)


def vit(class_token=True) -> Subnet:
    return plain_subnet(vit_weights(class_token=class_token), backbone(class_token=class_token))


def seen(model: Subnet, x: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
    """Inputs and outputs of the linear layers of one layer, and its maps, by hand."""
    found = {}
    block = model.blocks[number]
    for name, part in (("qkv", block.attn.qkv), ("proj", block.attn.proj), ("fc2", block.mlp.fc2)):
        part.register_forward_hook(lambda _, given, out, name=name: found.update({name: (given[0], out)}))
    with torch.no_grad():
        model(x)
    q, k, v = found["qkv"][1].unflatten(2, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4).double()
    maps = (q @ k.mT / DIM**0.5).softmax(dim=3)
    return {"maps": maps, "values": v, "gathered": maps @ v, "hidden": found["fc2"][0].double()}


def close(one, other, **tolerance) -> bool:
    return torch.allclose(
        torch.as_tensor(one).double(), torch.as_tensor(other).double(), **{"atol": 1e-5, "rtol": 1e-4, **tolerance}
    )


@pytest.mark.parametrize("class_token", [True, False], ids=["class_token", "mean_pooled"])
def test_every_figure_is_its_definition(class_token):
    x, model = images(), vit(class_token)
    calibration = calibrate(model, x.split(5))
    assert calibration.num_images == 12
    assert torch.allclose(calibration.stream.sum(dim=0), torch.zeros(()).double(), atol=1e-6)  # norms leave no mean
    reads = [(model.norm if class_token else model.fc_norm, model.head)]
    for block in model.blocks:
        reads += [(block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)]
    read = sum(float((norm.weight * linear.weight).detach().square().sum()) for norm, linear in reads)
    assert float(calibration.stream.trace()) == pytest.approx(read, rel=1e-5)
    before = None
    for number, layer in enumerate(calibration.layers):
        by_hand = seen(vit(class_token), x, number)
        maps = by_hand["maps"]
        mean = maps.mean(dim=0)
        assert close(layer.mean_map, mean)
        assert close(layer.mean_map.sum(dim=2), torch.ones(()))
        divergence = (maps * (maps.log() - mean.log())).sum(dim=3).mean()
        assert close(layer.dispersion, divergence)
        cosine = torch.cosine_similarity(maps[:, :, None].flatten(3), maps[:, None].flatten(3), dim=3)
        assert close(layer.similarity, cosine.mean(dim=0))
        if before is None:
            assert layer.similarity_to_previous is None
        else:
            along = torch.cosine_similarity(maps.flatten(2), before.flatten(2), dim=2)
            assert close(layer.similarity_to_previous, along.mean())
        before = maps
        squares = torch.linalg.svdvals(maps).square()
        rank = 1 + (squares.cumsum(2) < 0.99 * squares.sum(2, keepdim=True)).sum(2).double().mean()
        assert close(layer.effective_rank, rank)
        gathered = by_hand["gathered"]
        output = model.blocks[number].attn.proj.weight.detach().double().unflatten(1, (HEADS, DIM))
        output = output - output.mean(dim=0)
        for head in range(HEADS):
            added = gathered[:, head] @ output[:, head].T
            assert close(layer.output_norm[head], added.norm(dim=2).mean())
            for other in range(HEADS):
                copied = maps[:, other] @ by_hand["values"][:, head] @ output[:, head].T
                assert close(layer.copy_error[other, head], (copied - added).square().sum(dim=2).mean())
        hidden = by_hand["hidden"].flatten(0, 1)
        assert close(layer.second_moment, hidden.T @ hidden / len(hidden))
        gathered = by_hand["gathered"].transpose(1, 2).flatten(2).flatten(0, 1)
        assert close(layer.gathered_moment, gathered.T @ gathered / len(gathered))


def test_the_model_is_left_as_it_was():
    model = vit()
    calibrate(model, [images()])
    assert not any(block.attn.exports_maps for block in model.blocks)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_layers_that_look_the_same_for_every_image_have_no_dispersion():
    one = plain_vits.images(1).expand(6, -1, -1, -1)
    for layer in calibrate(vit(), [one]).layers:
        assert layer.dispersion < 1e-5
    assert min(layer.dispersion for layer in calibrate(vit(), [images()]).layers) > 1e-3


def test_effective_rank_counts_what_holds_99_percent_of_the_energy():
    maps = torch.stack(
        [torch.eye(10), torch.full((10, 10), 0.1), torch.diag(torch.tensor([9.0, 3.0, 0.9, *[0.0] * 7]))]
    )
    assert module._effective_rank(maps[None]).tolist() == [[10, 1, 2]]


def test_effective_rank_is_of_the_first_images_only(monkeypatch):
    whole = calibrate(vit(), images().split(4))
    monkeypatch.setattr(module, "CLOSER_IMAGES", 6)
    few = calibrate(vit(), images().split(4))
    first = calibrate(vit(), [images()[:6]])
    for i in range(2):
        assert few.layers[i].effective_rank == pytest.approx(first.layers[i].effective_rank)
        assert few.layers[i].dispersion == whole.layers[i].dispersion
    assert [layer.effective_rank for layer in few.layers] != [layer.effective_rank for layer in whole.layers]


def test_the_change_of_a_static_layer_is_that_of_the_subnet_with_its_mean_maps():
    supernet, _, calibration = started()
    plain = LayerChoice(num_tokens=16, num_heads=HEADS, mlp_ratio=2.0)
    with torch.no_grad():
        before = vit()(images()).double().log_softmax(dim=1)
        for number, layer in enumerate(calibration.layers):
            layers = [plain, plain]
            layers[number] = replace(plain, attention="static")
            static = supernet.extract(Architecture(embed_dim=24, layers=tuple(layers)))
            after = static(images()).double().log_softmax(dim=1)
            assert layer.static_change == pytest.approx(
                float((before.exp() * (before - after)).sum(dim=1).mean()), rel=1e-3, abs=1e-6
            )


def test_without_a_classifier_there_are_no_predictions_to_change():
    weights = {name: value for name, value in vit_weights().items() if not name.startswith("head.")}
    rows = redundancy_rows(calibrate(plain_subnet(weights, backbone()), [images()]))
    assert [row["static_change_nats"] for row in rows] == [None, None]


def test_rows_say_which_layer_bears_what():
    calibration = calibrate(vit(), [images()])
    rows = redundancy_rows(calibration)
    assert [row["layer"] for row in rows] == [0, 1]
    assert [row["tokens"] for row in rows] == [17, 17]
    assert [row["dispersion_nats"] for row in rows] == [layer.dispersion for layer in calibration.layers]
    assert [row["static_change_nats"] for row in rows] == [layer.static_change for layer in calibration.layers]
    assert rows[0]["similarity_to_previous"] is None
    for row, layer in zip(rows, calibration.layers, strict=True):
        similar = layer.similarity - 2 * torch.eye(HEADS)
        assert row["similarity_of_heads"] == pytest.approx(float(similar.max(dim=1).values.mean()))
        assert 1 <= row["effective_rank"] <= 17


def test_one_head_has_no_other_to_be_like():
    weights = vit_weights(num_heads=1)
    rows = redundancy_rows(calibrate(plain_subnet(weights, backbone()), [images()]))
    assert [row["similarity_of_heads"] for row in rows] == [None, None]


def test_nothing_can_be_learnt_without_images():
    with pytest.raises(DataError, match="at least one image"):
        calibrate(vit(), [])


@pytest.mark.parametrize(
    "choice",
    [{"attention": "static"}, {"hallucination_ratio": 0.5}, {"num_tokens": 4, "reducer": "pool"}, {"ffn_rank": 0.25}],
)
def test_only_a_plain_vit_is_calibrated(choice):
    layer = LayerChoice(**{"num_tokens": 16, "num_heads": 2, "mlp_ratio": 2, **choice})
    model = Subnet(backbone(), Architecture(embed_dim=16, layers=(layer,)))
    model.init_weights()
    with pytest.raises(ValueError, match="only a plain ViT"):
        calibrate(model, [images()])


# --- operators -------------------------------------------------------------------------------------------


def started(**changes) -> tuple[Supernet, list[str], module.Calibration]:
    """A supernet with every operator that starts from the calibrated network."""
    genes = {
        "num_tokens": (16, 9, 4),
        "num_heads": (2, 3),
        "mlp_ratio": (1.0, 2.0),
        "ffn_rank": (0.25, 0.5, 1.0),
        **changes,
    }
    supernet = Supernet(space(every_choice(**genes), embed_dim=(16, 24), depth=(2,)))
    weights = vit_weights()
    supernet.load_timm(weights)
    calibration = calibrate(plain_subnet(weights, backbone()), [images()])
    return supernet, start_operators(dict(supernet.named_parameters()), calibration, backbone()), calibration


def test_static_maps_are_the_mean_maps_and_those_of_coarser_grids_are_theirs_pooled():
    supernet, filled, calibration = started()
    stored = dict(supernet.named_parameters())
    for i, layer in enumerate(calibration.layers):
        names = [name for name in stored if name.startswith(f"blocks.{i}.attn.static_map_")]
        assert names
        assert set(names) <= set(filled)
        for name in names:
            maps = stored[name].softmax(dim=2).detach()
            assert close(maps.sum(dim=2), torch.ones(()))
            assert close(maps[:, 0, 0], layer.mean_map[:, 0, 0])  # the class token pools with no other
        assert close(stored[f"blocks.{i}.attn.static_map_16"].softmax(dim=2).detach(), layer.mean_map)


def test_factors_lose_no_more_than_the_discarded_energy():
    supernet, filled, calibration = started()
    stored = {name: value.detach().double() for name, value in supernet.named_parameters()}
    for i, layer in enumerate(calibration.layers):
        weight = stored[f"blocks.{i}.mlp.fc2.weight"]
        down, up = stored[f"blocks.{i}.mlp.down.weight"], stored[f"blocks.{i}.mlp.up.weight"]
        assert len(down) == 12
        energy = torch.linalg.eigvalsh(weight @ layer.second_moment @ weight.T)
        for rank in (6, 12):
            missing = weight - up[:, :rank] @ down[:rank]
            lost = torch.trace(missing @ layer.second_moment @ missing.T)
            assert close(lost, energy[: 24 - rank].sum(), rtol=1e-3)
        assert {f"blocks.{i}.mlp.down.weight", f"blocks.{i}.mlp.up.weight"} <= set(filled)


def test_only_operators_are_filled():
    weights = vit_weights()
    supernet, filled, _ = started()
    assert not set(filled) & set(weights)
    for name, value in supernet.state_dict().items():
        if name in weights:
            assert torch.equal(value, weights[name])


def test_a_smaller_network_fills_the_first_heads_and_channels():
    genes = {"num_tokens": (16,), "num_heads": (4,), "mlp_ratio": (3.0,), "ffn_rank": (0.5, 1.0)}
    supernet = Supernet(space(every_choice(**genes), embed_dim=(40,), depth=(3,)))
    weights = vit_weights()
    supernet.load_timm(weights)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    calibration = calibrate(plain_subnet(weights, backbone()), [images()])
    filled = start_operators(dict(supernet.named_parameters()), calibration, backbone())
    assert not any(name.startswith("blocks.2.") for name in filled)
    after = supernet.state_dict()
    name = "blocks.1.attn.static_map_16"
    assert close(after[name][:3].softmax(dim=2), calibration.layers[1].mean_map)
    assert torch.equal(after[name][3:], before[name][3:])
    up, down = after["blocks.1.mlp.up.weight"], after["blocks.1.mlp.down.weight"]
    assert close(up[:24, :20] @ down[:20, :48], weights["blocks.1.mlp.fc2.weight"], atol=0.5)
    assert torch.equal(up[24:], before["blocks.1.mlp.up.weight"][24:])
    assert torch.equal(down[:, 48:], before["blocks.1.mlp.down.weight"][:, 48:])


def test_values_follow_the_device_and_type_of_what_is_stored():
    weights = vit_weights()
    calibration = calibrate(plain_subnet(weights, backbone()), [images()])
    stored = {
        "blocks.0.attn.static_map_16": nn.Parameter(torch.zeros(3, 17, 17, dtype=torch.bfloat16)),
        "blocks.0.attn.static_map_7": nn.Parameter(torch.zeros(3, 8, 8)),
        "blocks.0.attn.qkv.weight": nn.Parameter(torch.zeros(3)),
    }
    assert start_operators(stored, calibration, backbone()) == list(stored)[:2]
    assert close(stored["blocks.0.attn.static_map_7"].detach().softmax(dim=2).sum(dim=2), torch.ones(()))
    assert torch.count_nonzero(stored["blocks.0.attn.static_map_7"])
    assert stored["blocks.0.attn.static_map_16"].dtype is torch.bfloat16
