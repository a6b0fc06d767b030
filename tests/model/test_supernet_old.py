"""Weights of supernets of version 0.1.0 at commit fcac30b, which had one set of hallucination weights in a layer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import backbone
from safetensors.torch import load_file
from small_spaces import space

from nas.arch.architecture import Architecture, LayerChoice
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain

FIXTURE = Path(__file__).parents[1] / "fixtures" / "old_hallucination.safetensors"
"""Random weights, two images, and the logits that they gave then, [architectures, 2, classes]."""
DOMAIN = LayerDomain(
    num_tokens=(16,),
    attention=("dynamic", "shared"),
    hallucination_ratio=(0.0, 0.34, 0.7),
    hallucination=("copy", "mix", "mix_conv"),
    num_heads=(1, 2, 3),
    ffn_rank=(0.5, 1.0),
    mlp_ratio=(2.0,),
)
SPACE = space(DOMAIN, backbone=backbone(image_size=8, patch_size=2), embed_dim=(8, 16), depth=(2,))


def architectures() -> list[Architecture]:
    """One and two real heads, one and two derived ones in every way, in dynamic layers and in shared ones."""
    found = []
    for heads, ratio, rank in ((2, 0.5, 1.0), (3, 1 / 3, 0.5), (3, 2 / 3, 1.0)):
        for variant in DOMAIN.hallucination:
            plain = LayerChoice(num_tokens=16, num_heads=heads, mlp_ratio=2.0, ffn_rank=rank)
            first = replace(plain, hallucination_ratio=ratio, hallucination=variant)
            for kind in DOMAIN.attention:
                found.append(Architecture(embed_dim=16, layers=(first, replace(first, attention=kind))))
    return found


@pytest.fixture(scope="module")
def old() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE)


def weights_of(old: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("supernet."): value for name, value in old.items() if name.startswith("supernet.")}


@pytest.mark.parametrize("assign", [False, True], ids=["copied", "assigned"])
def test_every_set_starts_as_the_one_of_then_and_no_network_changes(old, assign):
    supernet, given = Supernet(SPACE).eval(), weights_of(old)
    supernet.load_state_dict(given, assign=assign)
    assert given.keys() == weights_of(old).keys()
    with torch.no_grad():
        logits = torch.stack([supernet(old["images"], architecture) for architecture in architectures()])
    assert torch.allclose(logits, old["logits"], atol=1e-5)
    stored = supernet.state_dict()
    names = {name.split(".")[3] for name in stored if ".hallucinate" in name}
    assert names == {"hallucinate_1", "hallucinate_2"}
    assert torch.equal(stored["blocks.1.attn.hallucinate_2.mix"], given["blocks.1.attn.hallucinate.mix"][:1])
    assert torch.equal(stored["blocks.1.attn.hallucinate_1.mix"], given["blocks.1.attn.hallucinate.mix"][:, :1])


def test_what_is_wrong_with_old_weights_is_said(old):
    given = weights_of(old)
    del given["blocks.0.attn.hallucinate.mix"]
    given["blocks.1.attn.hallucinate.gain"] = given["blocks.1.attn.hallucinate.gain"][:1]
    with pytest.raises(RuntimeError) as caught:
        Supernet(SPACE).load_state_dict(given)
    assert "blocks.0.attn.hallucinate_1.mix" in str(caught.value)
    assert "size mismatch for blocks.1.attn.hallucinate_1.gain" in str(caught.value)
