"""Subnets that are run together have the logits they have alone."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_spaces import chains, part_of, randomise, space, stems

from nas.model import tree
from nas.model.supernet import Supernet
from nas.model.tree import SubnetParts, SubnetTree, subtrees

CPU = torch.device("cpu")


def case(seed, count=24, whole=None):
    """A part of a space with a supernet, and architectures of which some begin alike."""
    rng = np.random.default_rng(seed)
    part = part_of(whole or space(), rng)
    supernet = Supernet(part).eval()
    randomise(supernet, seed)
    found = [part.sample(rng) for _ in range(count // 3)]
    while len(found) < count:
        found.append(part.mutate(found[int(rng.integers(len(found)))], rng))
    return supernet, found, torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["fp32", "bf16"])
def precision(request):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=request.param == "bf16"):
        yield request.param


def run(supernet, architectures, images, precision, wanted=None):
    joined = SubnetTree(SubnetParts(supernet, CPU, precision), dict(enumerate(architectures)))
    return joined.answers(images, range(len(architectures)) if wanted is None else wanted)


@pytest.mark.parametrize("seed", range(8))
def test_logits_are_those_of_the_extracted_subnets_bit_for_bit(seed, precision):
    supernet, architectures, images = case(seed, whole=chains() if seed % 2 else None)
    found, failed = run(supernet, architectures, images, precision)
    assert not failed
    assert found.keys() == set(range(len(architectures)))
    for number, architecture in enumerate(architectures):
        assert torch.equal(found[number][1], supernet.extract(architecture)(images))


def test_stems_are_roots_of_their_own(precision):
    supernet = Supernet(stems()).eval()
    randomise(supernet)
    rng = np.random.default_rng(0)
    drawn = [replace(supernet.space.sample(rng), stem=stem) for _ in range(6) for stem in ("patch", "conv")]
    images = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found, failed = run(supernet, drawn, images, precision)
    assert not failed
    for number, architecture in enumerate(drawn):
        assert torch.equal(found[number][1], supernet.extract(architecture)(images))


def test_parts_that_were_kept_for_a_tree_serve_the_next_one(precision):
    supernet, architectures, images = case(3)
    parts = SubnetParts(supernet, CPU, precision)
    for half in (architectures[::2], architectures[1::2], architectures):
        found, _ = SubnetTree(parts, dict(enumerate(half))).answers(images, range(len(half)))
        for number, architecture in enumerate(half):
            assert torch.equal(found[number][1], supernet.extract(architecture)(images))
        parts.trim(0 if half is architectures[1::2] else tree.MOST_BYTES)


def test_who_is_not_wanted_is_not_run(precision):
    supernet, architectures, images = case(5)
    everyone, _ = run(supernet, architectures, images, precision)
    found, failed = run(supernet, architectures, images, precision, wanted={1, 4})
    assert not failed
    assert found.keys() == {1, 4}
    assert all(torch.equal(found[number][1], everyone[number][1]) for number in found)


def test_a_layer_that_fails_takes_with_it_those_behind_it_and_no_others():
    supernet, architectures, images = case(7)
    joined = SubnetTree(SubnetParts(supernet, CPU, "fp32"), dict(enumerate(architectures)))
    root = next(iter(joined._roots.values()))
    broken = next(iter(root.following.values()))

    def fail(*_):
        raise RuntimeError("broken")

    broken.run = fail
    with torch.inference_mode():
        found, failed = joined.answers(images, range(len(architectures)))
    assert failed.keys() == broken.subnets
    assert {str(error) for error in failed.values()} == {"broken"}
    assert found.keys() == set(range(len(architectures))) - broken.subnets


def test_what_begins_alike_is_computed_once(monkeypatch):
    supernet, architectures, images = case(11)
    calls = Counter()
    attend = tree.Block.attend

    def counted(self, x, *rest):
        calls[x.shape] += 1
        return attend(self, x, *rest)

    monkeypatch.setattr(tree.Block, "attend", counted)
    run(supernet, architectures, images, "fp32")
    backbone = supernet.space.backbone
    halves = [list(tree._values(architecture, backbone)) for architecture in architectures]
    beginnings = {tuple(keys[: i + 1]) for keys in halves for i in range(0, len(keys), 2)}
    assert calls.total() == len(beginnings) < sum(architecture.depth for architecture in architectures)


@pytest.mark.parametrize("seed", range(4))
def test_parts_for_one_tree_each_hold_everyone_once_and_keep_the_limits(seed, monkeypatch):
    supernet, architectures, _ = case(seed, count=60)
    backbone = supernet.space.backbone
    assert len(subtrees(architectures, backbone)) == 1
    for most_bytes, most_subnets in ((1, 512), (60_000, 512), (2**28, 7)):
        monkeypatch.setattr(tree, "MOST_BYTES", most_bytes)
        monkeypatch.setattr(tree, "MOST_SUBNETS", most_subnets)
        parts = subtrees(architectures, backbone)
        assert sorted(i for part in parts for i in part) == list(range(60))
        assert len(parts) > 1
        assert max(map(len, parts)) <= most_subnets
        for part in parts:
            held = {key: n for i in part for key, n in tree._values(architectures[i], backbone).items()}
            one = {architectures[i].digest for i in part}
            assert 4 * sum(held.values()) <= most_bytes or len(one) == 1


def test_neighbours_begin_alike():
    supernet, architectures, _ = case(2, count=60)
    (order,) = subtrees(architectures, supernet.space.backbone)

    def shared(pairs):
        return sum(a.embed_dim == b.embed_dim and a.layers[0] == b.layers[0] for a, b in pairs)

    ordered = [architectures[i] for i in order]
    assert shared(pairwise(ordered)) > shared(pairwise(architectures))


def test_halves_that_were_not_used_for_longest_are_forgotten_first():
    supernet, architectures, _ = case(1)
    parts = SubnetParts(supernet, CPU, "bf16")
    SubnetTree(parts, dict(enumerate(architectures)))
    known = list(parts._halves)
    SubnetTree(parts, {0: architectures[0]})
    used = list(parts._halves)[-2 * architectures[0].depth :]
    assert set(used) == set(tree._values(architectures[0], supernet.space.backbone))
    size = sum(parts._halves[key][1] for key in used)
    parts.trim(size)
    assert set(parts._halves) == set(used) < set(known)
    parts.trim(0)
    assert not parts._halves
