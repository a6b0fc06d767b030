"""Which networks an architecture is compared with."""

import numpy as np
from factories import point
from search_fakes import digits as shipped_digits

from nas.arch import cost
from nas.jobs.rivals.baselines import baseline_of, narrow_of
from nas.space.designs import is_plain, plain_shapes
from nas.space.space import parse_space


def test_a_space_without_a_plain_vit_is_compared_with_its_largest_architecture():
    space = parse_space(
        "name: static\nbackbone: {image_size: 8, patch_size: 2, num_classes: 10, head_dim: 8}\n"
        "embed_dim: 16\ndepth: 2\nlayers: {attention: static, num_heads: [1, 2], mlp_ratio: 1}\n",
        "static.yaml",
    )
    assert baseline_of(space, space.smallest(), ()) == ("largest", space.largest())


def test_the_baseline_is_the_best_measured_plain_vit_of_at_most_as_many_macs():
    space = shipped_digits()
    shapes = plain_shapes(space)
    tops = {3: 60.0, 5: 72.0, 8: 70.0, 20: 90.0}
    measured = [point(top1, float(cost.macs(shapes[i], space.backbone)), 1.0, shapes[i]) for i, top1 in tops.items()]
    assert baseline_of(space, shapes[10], measured) == ("best plain ViT at no more MACs", shapes[5])
    assert baseline_of(space, shapes[5], measured) == ("best plain ViT at no more MACs", shapes[3])  # never itself
    assert baseline_of(space, shapes[2], measured) == ("plain ViT", space.largest())
    pooled = [one for i in range(40) if not is_plain(one := space.sample(np.random.default_rng(i)))]
    better = [point(99.0, 1.0, 1.0, one) for one in pooled[:3]]
    assert baseline_of(space, shapes[10], [*measured, *better])[1] == shapes[5]


def test_the_narrow_plain_vit_is_the_next_below_in_macs_and_there_may_be_none():
    space = shipped_digits()
    shapes = plain_shapes(space)
    assert narrow_of(space, shapes[10]) == ("narrow plain ViT", shapes[9])
    assert narrow_of(space, shapes[0])[1] is None
