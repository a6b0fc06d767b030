from itertools import product

import pytest
import torch
from attention_layers import (
    FIXED,
    HEADS,
    KINDS,
    SHARED,
    built,
    change_nothing,
    hallucinating,
    layer,
    provided_by,
    tokens,
)

from nas.arch.operators import HALLUCINATION
from nas.model.layers.maps import Provided


@pytest.mark.parametrize("kind", KINDS)
def test_shared_layer_equals_attention_with_the_providers_queries_and_keys(kind):
    # METHODS 5.12, test 2, also for a provider that hallucinates (5.3)
    choice = KINDS[kind]
    provider, consumer = built(choice, maps=True), built(layer(attention="shared"), seed=5)
    _, exported = provider(tokens(), None)
    assert torch.allclose(consumer(tokens(), exported)[0], with_values_of(consumer, provider, built(choice)), atol=1e-5)


@pytest.mark.parametrize(("heads", "hallucinated"), HEADS)
@pytest.mark.parametrize(("variant", "own_variant"), list(product(HALLUCINATION, repeat=2)))
def test_layer_that_hallucinates_anew_equals_attention_with_the_providers_queries_and_keys(
    variant, own_variant, heads, hallucinated
):
    provider = built(hallucinating(heads, hallucinated, variant), logits=True)
    consumer = built(hallucinating(heads, hallucinated, own_variant, attention="shared"), seed=5)
    _, exported = provider(tokens(), None)
    full = built(hallucinating(heads, hallucinated, own_variant))
    full.hallucinate.load_state_dict(consumer.hallucinate.state_dict())
    expected = with_values_of(consumer, provider, full)
    assert torch.allclose(consumer(tokens(), exported)[0], expected, atol=1e-5)


def with_values_of(consumer, provider, full) -> torch.Tensor:
    """Output of `full`, given the provider's queries and keys, and everything else of the consumer's."""
    queries_and_keys = 2 * provider.real * FIXED.head_dim
    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat([provider.qkv.weight[:queries_and_keys], consumer.v.weight]))
        full.qkv.bias.copy_(torch.cat([provider.qkv.bias[:queries_and_keys], consumer.v.bias]))
        full.proj.load_state_dict(consumer.proj.state_dict())
        if consumer.hallucinate is None and provider.hallucinate is not None:
            full.hallucinate.load_state_dict(provider.hallucinate.state_dict())
    return full(tokens(), None)[0]


@pytest.mark.parametrize(("heads", "hallucinated"), HEADS)
@pytest.mark.parametrize("variant", list(HALLUCINATION))
def test_hallucinating_anew_with_first_values_equals_sharing_a_provider_of_first_values(variant, heads, hallucinated):
    provider = built(hallucinating(heads, hallucinated, "copy"), maps=True, logits=True)
    change_nothing(provider.hallucinate)
    _, exported = provider(tokens(), None)
    plain = built(layer(num_heads=heads, attention="shared"), seed=5)
    anew = built(hallucinating(heads, hallucinated, variant, attention="shared"), seed=7)
    change_nothing(anew.hallucinate)
    anew.load_state_dict(plain.state_dict(), strict=False)
    assert torch.allclose(anew(tokens(), exported)[0], plain(tokens(), exported)[0], atol=1e-5)


@pytest.mark.parametrize("kind", SHARED)
def test_shared_layer_passes_on_the_very_same_and_leaves_it_as_it_is(kind):
    given = provided_by(real=SHARED[kind].num_real)
    before = Provided(*(part.clone() for part in given))
    with torch.no_grad():
        _, passed_on = built(SHARED[kind])(tokens(), given)
    assert passed_on is given
    assert torch.equal(given.maps, before.maps)
    assert torch.equal(given.logits, before.logits)


@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("given", [None, Provided(None, None)])
def test_shared_layer_without_what_it_takes_is_an_error(kind, given):
    with pytest.raises(ValueError, match="provider"):
        built(SHARED[kind])(tokens(), given)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_consumers_reach_the_providers_queries_and_keys(kind):
    choice = KINDS[kind]
    provider = built(choice, maps=True, logits=True)
    _, exported = provider(tokens(), None)
    consumers = [layer(attention="shared")]
    if choice.num_hallucinated:
        consumers.append(hallucinating(3, choice.num_hallucinated, "mix_conv", attention="shared"))
    for consumer in consumers:
        out, _ = built(consumer)(tokens(), exported)
        (gradient,) = torch.autograd.grad(out.sum(), [provider.qkv.weight], retain_graph=True)
        rows = 2 * provider.real * FIXED.head_dim
        assert (gradient[:rows].abs().sum(dim=1) > 0).all()
        assert (gradient[rows:] == 0).all()


def test_shared_layers_own_no_queries_and_keys():
    for choice in SHARED.values():
        names = {name for name, _ in built(choice).named_parameters() if not name.startswith("hallucinate.")}
        assert names == {"v.weight", "v.bias", "proj.weight", "proj.bias"}
