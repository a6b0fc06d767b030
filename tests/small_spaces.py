"""Small search spaces over every operator, and their architectures listed the long way round."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from factories import backbone

from nas.architecture import Architecture, AttentionKind, Hallucination, LayerChoice, Reducer
from nas.errors import ArchitectureError
from nas.space import GENES, LayerDomain, SearchSpace


def every_choice(**changes: Any) -> LayerDomain:
    """Every operator, three token counts of 16 patches, up to three heads."""
    genes: dict[str, Any] = {
        "num_tokens": (16, 9, 4),
        "reducer": tuple(Reducer),
        "attention": tuple(AttentionKind),
        "hallucination_ratio": (0.0, 0.34, 0.7),
        "hallucination": tuple(Hallucination),
        "num_heads": (1, 2, 3),
        "mlp_ratio": (0.5, 2.0),
    }
    return LayerDomain(**{**genes, **changes})


def space(domain: LayerDomain | None = None, **changes: Any) -> SearchSpace:
    """Some 10**10 architectures of two to four layers, or those of another domain."""
    domain = domain or every_choice()
    fields: dict[str, Any] = {
        "name": "small",
        "backbone": backbone(),
        "embed_dim": (16, 24),
        "depth": (2, 3, 4),
    } | changes
    fields.setdefault("layers", (domain,) * max(fields["depth"]))
    return SearchSpace(**fields)


def tiny(**changes: Any) -> SearchSpace:
    """Few enough architectures to list them all, with everything that makes them differ in cost."""
    domain = every_choice(
        num_tokens=(16, 4), num_heads=(1, 2), hallucination_ratio=(0.0, 0.5), mlp_ratio=(0.5, 1.0)
    )
    return space(domain, **{"embed_dim": (8,), "depth": (1, 2), **changes})


def listed(space: SearchSpace) -> Iterator[Architecture]:
    """Every architecture of a space, some twice: all combinations of all values but the illegal ones."""
    for width, depth in product(space.embed_dim, space.depth):
        for layers in product(*(_spelled(domain) for domain in space.layers[:depth])):
            first, patches = layers[0], space.backbone.num_patches
            if (first.reducer is not None) == (first.num_tokens < patches):
                try:
                    yield Architecture(embed_dim=width, layers=layers)
                except ArchitectureError:
                    continue


def _spelled(domain: LayerDomain) -> set[LayerChoice]:
    choices = set()
    values = [(None, *domain.reducer) if gene == "reducer" else getattr(domain, gene) for gene in GENES]
    for genes in product(*values):
        try:
            choices.add(LayerChoice(**dict(zip(GENES, genes, strict=True))))
        except ArchitectureError:
            continue
    return choices


def randomise(module: Any, seed: int = 0) -> None:
    """Give every weight a value that acts: the operators' own start at zero or one."""
    import torch  # spaces need none

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
