"""What the instruments read: against definitions, on networks of known weights, and after real trainings."""

import math
from dataclasses import replace

import pytest
import torch
from small_runs import one_thread
from small_spaces import every_choice, randomise, space, tiny_space

from nas.arch import tiling
from nas.arch.architecture import Architecture, LayerChoice
from nas.arch.diagnostics import DIAGNOSTICS
from nas.model.instruments import Instruments, watched_networks
from nas.model.layers.glad import average_tokens
from nas.model.supernet import Supernet
from nas.space.domain import LayerDomain
from nas.space.space import SearchSpace

PLAIN = LayerChoice(num_tokens=16, num_heads=2, mlp_ratio=2.0)
IMAGES = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


def diagnose(supernet, architectures, images):
    return Instruments(supernet, architectures).read(images)


def all_operators(**changes) -> SearchSpace:
    genes = {"num_heads": (2,), "hallucination_ratio": (0.0, 0.5), "ffn_rank": (0.5, 1.0), "mlp_ratio": (2.0,)}
    return space(every_choice(**genes | changes), embed_dim=(16,), depth=(3,))


def random_supernet() -> Supernet:
    supernet = Supernet(all_operators())
    randomise(supernet)
    return supernet


def network(*layers) -> Architecture:
    return Architecture(embed_dim=16, layers=tuple(replace(PLAIN, **changes) for changes in layers))


def arriving(supernet, architecture, layer, part):
    """What comes to a part of a layer, and what it makes of it."""
    seen = []
    subnet = supernet.extract(architecture)
    subnet.blocks[layer].get_submodule(part).register_forward_hook(lambda _, x, y: seen.append((x[0], y)))
    with torch.no_grad():
        subnet(IMAGES)
    return subnet.blocks[layer].get_submodule(part), *seen[0]


def softmax_maps(supernet, layer, x):
    """[B, 2, T, T] of the stored queries and keys, written out."""
    weight, bias = (supernet.get_parameter(f"blocks.{layer}.attn.qkv.{name}").detach() for name in ("weight", "bias"))
    q, k = (
        (x @ weight[start : start + 16].T + bias[start : start + 16]).view(*x.shape[:2], 2, 8).transpose(1, 2)
        for start in (0, 16)
    )
    return (q @ k.mT / math.sqrt(8)).softmax(dim=-1)


def entropy(maps):
    return -(maps * maps.log()).sum(dim=-1).mean()


def test_every_operator_of_a_space_is_looked_at_in_every_layer_that_has_it():
    chosen = watched_networks(all_operators())
    assert 1 < len(chosen) <= 3
    assert chosen == watched_networks(all_operators())
    assert {layer.reducer for a in chosen for layer in a.layers} >= {"glad", "conv_pool"}
    assert {layer.hallucination for a in chosen for layer in a.layers} >= {"copy", "mix", "mix_conv"}
    assert {layer.attention for a in chosen for layer in a.layers} >= {"static", "linear", "shared"}
    assert set(diagnose(random_supernet(), chosen, IMAGES)) == {diagnostic.name for diagnostic in DIAGNOSTICS}


def test_a_space_of_plain_layers_has_nothing_to_look_at():
    plain = space(LayerDomain(num_tokens=(16, 4), num_heads=(1, 2), mlp_ratio=(1.0, 2.0)))
    assert watched_networks(plain) == ()
    assert diagnose(Supernet(plain), (), IMAGES) == {}


def test_networks_keep_the_bounds_of_their_space():
    bounded = tiny_space()
    assert all(architecture in bounded for architecture in watched_networks(bounded))


def test_glad_by_its_definition():
    supernet, architecture = random_supernet(), network({}, {"num_tokens": 6, "reducer": "glad"}, {"num_tokens": 6})
    reducer, x, y = arriving(supernet, architecture, 1, "reducer")
    z = (x - x.mean(dim=2, keepdim=True)) / (x.var(dim=2, correction=0, keepdim=True) + 1e-6).sqrt()
    z = (z * reducer.norm.weight + reducer.norm.bias)[:, 1:]
    rows = torch.einsum("md,bpd->bmp", reducer.queries, z).div(4).softmax(dim=2).detach()
    average = average_tokens(x[:, 1:], 6)
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found.keys() == {"glad_entropy", "glad_share"}
    assert found["glad_entropy"] == pytest.approx(float(entropy(rows) / math.log(16)), rel=1e-4)
    assert found["glad_share"] == pytest.approx(float((y[:, 1:] - average).norm() / average.norm()), rel=1e-4)
    with torch.no_grad():
        supernet.get_parameter("blocks.1.reducer.queries_6").zero_()
        supernet.get_parameter("blocks.1.reducer.gamma").zero_()
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found["glad_entropy"] == pytest.approx(1)
    assert found["glad_share"] == pytest.approx(0, abs=1e-6)


def test_static_maps_by_their_definition_and_against_the_maps_of_the_layers_own_queries():
    supernet, architecture = random_supernet(), network({"attention": "static"}, {}, {})
    attention, x, _ = arriving(supernet, architecture, 0, "attn")
    static, dynamic = attention.static_map.detach().softmax(dim=-1), softmax_maps(supernet, 0, x)
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found["static_entropy"] == pytest.approx(float(entropy(static) / math.log(17)), rel=1e-4)
    divergence = (dynamic * (dynamic.log() - static.log())).sum(dim=-1).mean()
    assert found["static_kl"] == pytest.approx(float(divergence), rel=1e-4)


def test_linear_attention_against_dynamic_attention_with_the_same_weights():
    supernet, architecture = random_supernet(), network({}, {"attention": "linear"}, {})
    attention, x, y = arriving(supernet, architecture, 1, "attn")
    attention.requires_grad_(False)
    maps = softmax_maps(supernet, 1, x)
    values = attention.qkv(x)[..., 32:].view(*x.shape[:2], 2, 8).transpose(1, 2)
    dynamic = (maps @ values).transpose(1, 2).flatten(2) @ attention.proj.weight.T
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found["linear_scale"] == pytest.approx(float((y[0] - attention.proj.bias).norm() / dynamic.norm()), rel=1e-4)


@pytest.mark.parametrize("variant", ["copy", "mix", "mix_conv"])
def test_derived_heads_change_their_parents_logits_by_so_much(variant):
    supernet = Supernet(all_operators())
    architecture = network({}, {"hallucination_ratio": 0.5, "hallucination": variant}, {})
    name_of = "copy_change" if variant == "copy" else "mix_change"
    assert diagnose(supernet, (architecture,), IMAGES) == {name_of: pytest.approx(0, abs=1e-6)}
    with torch.no_grad():
        for name, weight in supernet.named_parameters():
            if name.startswith("blocks.1.attn.hallucinate") and name.endswith(".gain"):
                weight.fill_(0.75)
            elif name.startswith("blocks.1.attn.hallucinate") and name.endswith(".mix"):
                weight.fill_(0.5)
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found[name_of] == pytest.approx(0.25 if variant == "copy" else 0.5, rel=1e-4)


def test_a_convolution_is_part_of_the_change_and_what_all_keys_share_is_not():
    supernet = Supernet(all_operators())
    architecture = network({}, {"hallucination_ratio": 0.5, "hallucination": "mix_conv"}, {})
    attention, x, _ = arriving(supernet, architecture, 1, "attn")
    with torch.no_grad():
        for name, weight in supernet.named_parameters():
            if name.startswith("blocks.1.attn.hallucinate") and name.endswith("conv.weight"):
                weight.zero_()[..., 1, 1] = 1.0  # one more of the parent, among the patches
    attention.requires_grad_(False)
    q, k = (part.view(*x.shape[:2], 1, 8).transpose(1, 2) for part in attention.qkv(x)[..., :16].split(8, dim=2))
    logits = q @ k.mT / math.sqrt(8)
    change = torch.nn.functional.pad(logits[..., 1:, 1:], (1, 0, 1, 0))
    centred, parents = (part - part.mean(dim=-1, keepdim=True) for part in (change, logits))
    found = diagnose(supernet, (architecture,), IMAGES)
    assert found["mix_change"] == pytest.approx(float(centred.norm() / parents.norm()), rel=1e-4)


def test_shared_maps_against_those_of_the_layers_own_queries():
    supernet, architecture = random_supernet(), network({}, {"attention": "shared"}, {})
    _, before, _ = arriving(supernet, architecture, 0, "attn")
    _, x, _ = arriving(supernet, architecture, 1, "attn")
    provided, own = softmax_maps(supernet, 0, before).flatten(2), softmax_maps(supernet, 1, x).flatten(2)
    cosine = ((provided * own).sum(dim=2) / provided.norm(dim=2) / own.norm(dim=2)).mean()
    assert diagnose(supernet, (architecture,), IMAGES)["shared_cosine"] == pytest.approx(float(cosine), rel=1e-4)


def test_factors_against_the_whole_matrix():
    supernet, architecture = random_supernet(), network({}, {"ffn_rank": 0.5}, {})
    mlp, x, _ = arriving(supernet, architecture, 1, "mlp")
    with torch.no_grad():
        hidden = torch.nn.functional.gelu(mlp.fc1(x))
        whole = hidden @ supernet.get_parameter("blocks.1.mlp.fc2.weight").T
        ratio = (hidden @ mlp.down.weight.T @ mlp.up.weight.T).norm() / whole.norm()
    assert diagnose(supernet, (architecture,), IMAGES)["ffn_scale"] == pytest.approx(float(ratio), rel=1e-4)


def test_a_pooling_convolution_against_the_average():
    supernet = Supernet(all_operators())
    architecture = network({}, {"num_tokens": 4, "reducer": "conv_pool"}, {"num_tokens": 4})
    assert diagnose(supernet, (architecture,), IMAGES)["conv_pool_change"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        supernet.get_parameter("blocks.1.reducer.conv.weight")[..., 1, 1] = 0.5
    assert diagnose(supernet, (architecture,), IMAGES)["conv_pool_change"] == pytest.approx(0.5, rel=1e-4)


def test_the_mean_is_over_layers_however_many_images_pass_at_once(monkeypatch):
    supernet = Supernet(all_operators())
    copies = {"hallucination_ratio": 0.5, "hallucination": "copy"}
    with torch.no_grad():
        for name, weight in supernet.named_parameters():
            if ".hallucinate" in name and name.endswith(".gain"):
                weight.fill_(0.75 if "blocks.1" in name else 0.5)
    found = diagnose(supernet, (network({}, copies, {}), network({}, {}, copies)), IMAGES)
    assert found == {"copy_change": pytest.approx(0.375)}
    randomise(supernet)
    mixed = network({}, {**copies, "hallucination": "mix"}, {})
    whole = diagnose(supernet, (mixed,), IMAGES)
    monkeypatch.setattr(tiling, "CHUNK_BYTES", 1)
    assert diagnose(supernet, (mixed,), IMAGES) == pytest.approx(whole, rel=0.05)


def test_nothing_of_the_supernet_or_of_the_generators_is_changed():
    supernet = random_supernet().train()
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    state = torch.get_rng_state()
    diagnose(supernet, watched_networks(supernet.space), IMAGES)
    assert torch.equal(state, torch.get_rng_state())
    assert supernet.training
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in supernet.parameters())


def test_a_number_that_is_not_finite_is_left_out():
    supernet, architecture = random_supernet(), network({}, {"attention": "linear"}, {})
    with torch.no_grad():
        supernet.get_parameter("blocks.1.attn.proj.weight").zero_()  # 0 / 0
    assert diagnose(supernet, (architecture,), IMAGES) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_reads_the_same():
    supernet = random_supernet()
    networks = watched_networks(supernet.space)
    on_cpu = diagnose(supernet, networks, IMAGES)
    assert diagnose(supernet.to("cuda"), networks, IMAGES) == pytest.approx(on_cpu, rel=1e-2, abs=1e-3)
