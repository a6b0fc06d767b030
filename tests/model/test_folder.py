"""A hostile model folder is refused before anything is built, or is harmless."""

import json
import math
import pickle  # noqa: TID251 - what a stranger would send
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from nas.base.errors import ConfigError
from nas.data.images import DataInfo
from nas.model.folder import check_model_folder
from nas.training.distill import Teacher

INFO = DataInfo(class_names=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, flip_safe=True, hashes={})
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}


class Bomb:
    """What unpickling runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def folder(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **SMALL)
    timm.models.save_for_hf(model, str(tmp_path), model_args=SMALL, safe_serialization=True)
    return tmp_path


def change(folder, **groups):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in groups.items():
        before = config.get(key)
        config[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def test_what_timm_wrote_is_let_through(folder):
    check_model_folder(folder)
    assert Teacher(f"local-dir:{folder}", INFO)(torch.zeros(1, 3, 16, 16)).shape == (1, 2)


HOSTILE = {
    "many layers": ({"model_args": {"depth": 10**9}}, "model_args.depth 1000000000 is too large"),
    "wide": ({"model_args": {"embed_dim": 10**12}}, "model_args.embed_dim"),
    "larger than its weights": ({"model_args": {"embed_dim": 8192, "depth": 3}}, "parameters"),
    "a long list": ({"model_args": {"depths": [1] * 10**5}}, "length of model_args.depths"),
    "deep in": ({"model_args": {"a": {"b": [[10**9]]}}}, "model_args.a.b 1000000000"),
    "unknown values": ({"model_args": {"__class__": "os.system"}}, "__class__"),
    "code by name": ({"model_args": {"norm_layer": "os.system"}}, ""),
    "another model": ({"architecture": "../../etc/passwd"}, "timm has no architecture"),
    "no name": ({"architecture": {"a": 1}}, "timm has no architecture"),
    "no arguments": ({"model_args": [1]}, "model_args must be a group"),
    "no configuration": ({"pretrained_cfg": 3}, "pretrained_cfg must be a group"),
    "an export's network": ({"architecture": "nas_vit"}, "nas_vit needs"),
    "a rank of nothing": (
        {
            "architecture": "nas_vit",
            "model_args": {
                "architecture": {
                    "embed_dim": 8,
                    "layers": [{"num_tokens": 4, "num_heads": 1, "mlp_ratio": 1, "ffn_rank": 1e-9}],
                },
                "backbone": {"image_size": 16, "patch_size": 8, "head_dim": 8},
            },
        },
        "",
    ),
    "a broken export": (
        {"architecture": "nas_vit", "model_args": {"architecture": {"embed_dim": 1}, "backbone": {"x": 1}}},
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_configuration_is_one_message(folder, name):
    changes, said = HOSTILE[name]
    change(folder, **changes)
    with pytest.raises(ConfigError, match=r"--teacher local-dir:") as caught:
        Teacher(f"local-dir:{folder}", INFO)
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["[]", "", "{", "\x00", '{"architecture": NaN}', "[" * 100_000])
def test_a_configuration_that_is_none_is_one_message(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"--teacher local-dir:"):
        Teacher(f"local-dir:{folder}", INFO)


@pytest.mark.parametrize("key", ["url", "file", "hf_hub_id", "custom_load", "hf_hub_filename", "source", "state_dict"])
def test_a_configuration_cannot_send_for_other_weights(folder, key, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    for name in ("load_state_dict_from_url", "load_state_dict_from_hf", "download_cached_file", "load_custom_from_hf"):
        monkeypatch.setattr(f"timm.models._builder.{name}", refuse)
    before = Teacher(f"local-dir:{folder}", INFO).model.state_dict()
    change(folder, pretrained_cfg={key: "timm/vit_tiny_patch16_224"})
    after = Teacher(f"local-dir:{folder}", INFO).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.safetensors", "x.pth.tar"])
def test_a_pickle_runs_nothing(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(folder / "ran"), 2) + b"\0" * 10_000)
    with pytest.raises(ConfigError):
        Teacher(f"local-dir:{folder}", INFO)
    torch.save({"a": Bomb(folder / "ran"), "b": torch.zeros(10_000)}, folder / name)
    with pytest.raises(ConfigError):
        Teacher(f"local-dir:{folder}", INFO)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":' * 10_000,
        b"[]",
    ],
)
def test_a_hostile_safetensors_header_is_one_message(folder, header):
    for size in (len(header), 2**63, 0):
        (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + header + b"\0" * 10_000)
        with pytest.raises(ConfigError, match=r"--teacher local-dir:"):
            Teacher(f"local-dir:{folder}", INFO)


def test_weights_of_another_network_are_one_message(folder):
    save_file({"x": torch.zeros(10_000)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"--teacher local-dir:"):
        Teacher(f"local-dir:{folder}", INFO)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="outside of its folder"):
        check_model_folder(folder)
    with pytest.raises(ConfigError, match=r"--teacher local-dir:.*outside of its folder"):
        Teacher(f"local-dir:{folder}", INFO)


def test_links_within_the_folder_and_those_of_the_hubs_cache_are_fine(folder, tmp_path_factory):
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "w")
    (folder / "model.safetensors").symlink_to("weights/w")
    check_model_folder(folder)
    cache = tmp_path_factory.mktemp("hub")
    (cache / "blobs").mkdir()
    (cache / "snapshots" / "0123").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).resolve().rename(cache / "blobs" / name)
        (cache / "snapshots" / "0123" / name).symlink_to(cache / "blobs" / name)
    check_model_folder(cache / "snapshots" / "0123")
    link = cache / "link"
    link.symlink_to(cache / "snapshots" / "0123")
    check_model_folder(link)


def test_what_cannot_be_built_without_memory_is_bounded_by_its_weights(folder, monkeypatch):
    create, sizes = timm.create_model, []

    def stubborn(spec, **arguments):
        sizes.append(torch.empty(0).device.type)
        if sizes[-1] == "meta":
            raise NotImplementedError("Tensor.item() cannot be called on meta tensors")
        return create(spec, **arguments)

    monkeypatch.setattr("nas.model.folder.timm.create_model", stubborn)
    monkeypatch.setattr("nas.model.folder.BESIDE", 1_000)
    check_model_folder(folder)
    assert sizes == ["meta", "cpu"]
    change(folder, model_args={"embed_dim": 8192, "depth": 1_000})  # three terabytes
    with pytest.raises(ConfigError, match=r"--teacher local-dir:.*larger network than its weights"):
        Teacher(f"local-dir:{folder}", INFO)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_teach_nobody(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["norm.bias"][1] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"--teacher local-dir:.*: NaN or infinity in norm.bias"):
        Teacher(f"local-dir:{folder}", INFO)
