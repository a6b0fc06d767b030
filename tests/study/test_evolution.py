import numpy as np
from search_fakes import digits

from nas.study import evolution


def test_parents_are_the_least_dominated_and_among_these_the_most_accurate():
    space, rng = digits(), np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(5)]
    losses = np.array([[0.5, 1.0], [0.1, 3.0], [0.3, 2.0], [0.6, 3.0], [0.2, 3.5]])
    assert evolution.select(architectures, losses, 15) == [architectures[i] for i in (1, 2, 0)]


def test_children_are_new_legal_and_take_genes_from_their_parents():
    space, rng = digits(), np.random.default_rng(0)
    parents = [space.sample(rng) for _ in range(2)]
    seen = {parent.digest for parent in parents}
    for is_mutant in (True, False):
        for _ in range(20):
            child = evolution.child(space, parents, seen, is_mutant=is_mutant, rng=rng)
            assert child in space
            assert child.digest not in seen
            seen.add(child.digest)
    crossed = evolution.child(space, parents, (), is_mutant=False, rng=rng)
    mother, father, child = (space.encode(a) for a in (*parents, crossed))
    assert sum(child[name] in (mother[name], father[name]) for name in child) > 0.9 * len(child)


def test_without_parents_a_child_is_drawn():
    space = digits()
    assert evolution.child(space, [], (), is_mutant=True, rng=np.random.default_rng(0)) in space
