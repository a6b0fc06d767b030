"""Law 7: nothing that trains, searches or ranks reads the test split, because none of it is given what opens it."""

import functools
import os
import types
from dataclasses import replace

import pytest
from image_files import write_folder
from small_runs import ROOT, TINY, begin, command, one_thread, run_arguments

from nas.base.progress import Reporter
from nas.data import images, loader
from nas.data.samples import Source
from nas.data.sources import open_source
from nas.data.splits import Entry
from nas.evaluation.evaluator import build_evaluator, evaluator_arrays
from nas.jobs import stages
from nas.jobs.alone import build_stand_alone, image_arrays
from nas.jobs.alone_records import stand_alone_setup
from nas.jobs.measures import evaluator_setup
from nas.jobs.session import Budget, reopen, reopen_with_test, start
from nas.model.supernet import Supernet
from nas.settings.config import resolve_config
from nas.training.trained import weights_digest

KEYS = {"nas/data/images.py", "nas/data/loader.py", "nas/data/__init__.py"}
"""Where the test split is made."""
HOLDERS = {"nas/jobs/session.py", "nas/jobs/export.py", "nas/jobs/retrain.py"}
"""Who passes it on, and who opens it."""


@pytest.fixture(autouse=True)
def _single_threaded():
    with one_thread():
        yield


@pytest.fixture
def images_folder(tmp_path):
    """A folder of images with a test split of its own."""
    root = tmp_path / "images"
    write_folder(root / "train", per_class=30)
    write_folder(root / "test", per_class=4, seed=1)
    return root


def reachable(*roots):
    """All objects that can be got at from these: attributes, elements, and what functions close over."""
    waiting, seen = list(roots), {}
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, type | types.ModuleType):
            continue
        seen[id(found)] = found
        if isinstance(found, dict):
            waiting += [*found, *found.values()]
        elif isinstance(found, list | tuple | set | frozenset):
            waiting += found
        elif isinstance(found, functools.partial):
            waiting += [found.func, *found.args, *found.keywords.values()]
        elif isinstance(found, types.MethodType):
            waiting += [found.__self__, found.__func__]
        elif isinstance(found, types.FunctionType):
            waiting += [cell.cell_contents for cell in found.__closure__ or ()]
            waiting += [*(found.__defaults__ or ()), *(found.__kwdefaults__ or {}).values()]
        else:
            waiting += vars(found).values() if hasattr(found, "__dict__") else []
            slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting += [getattr(found, name) for name in slots if hasattr(found, name)]
    return seen.values()


def keys_among(objects):
    return [found for found in objects if isinstance(found, images.TestSplit | Source | Entry)]


def test_what_is_reachable_is_found_wherever_it_hides(tmp_path):
    _, key = reopen_with_test(begin(tmp_path).run.path, Reporter(quiet=True))
    hidden = [lambda: key, functools.partial(print, key), {"a": (key,)}, key.open, Holder(key)]
    assert all(key in keys_among(reachable(each)) for each in hidden)
    assert not keys_among(reachable([lambda: tmp_path, 1, "a"]))


class Holder:
    def __init__(self, key):
        self.key = key


def test_nothing_that_a_search_holds_leads_to_the_test_split(tmp_path):
    session = begin(tmp_path)
    supernet = stages.train(session)
    setup = evaluator_setup(session, weights_digest(session.run))
    arrays = evaluator_arrays(supernet, session.data.search)
    alone = stand_alone_setup(session, None, tmp_path / "alone")
    held = {
        "session": session,
        "reopened": reopen(session.run.path, Reporter(quiet=True)),
        "evaluator": [setup, arrays, functools.partial(build_evaluator, setup), build_evaluator(setup, arrays)],
        "alone": [alone, image_arrays(session.data), build_stand_alone(alone, image_arrays(session.data))],
        "trainer": stages.supernet_trainer(session),
    }
    for name, objects in held.items():
        assert keys_among(reachable(objects)) == [], name


def test_only_export_and_retrain_are_given_what_opens_the_test_split():
    def naming(*words):
        texts = {path: path.read_text() for path in (ROOT / "nas").rglob("*.py")}
        return {str(path.relative_to(ROOT)) for path, text in texts.items() if any(w in text for w in words)}

    assert naming("TestSplit", "reopen_with_test", "open_pick") == KEYS | HOLDERS


def test_a_search_ends_where_who_asks_for_test_images_is_an_error(tmp_path, images_folder, monkeypatch):
    """The reader of the test part may be listed and checked once, when the splits are made; then it raises."""

    def opened(config):
        source, readings = open_source(config), []

        def twice():
            readings.append(1)
            assert len(readings) <= 2, "a search asked for the test images"
            return source.test()

        return replace(source, test=twice)

    monkeypatch.setattr(loader, "open_source", opened)
    space_file = tmp_path / "tiny.yaml"
    space_file.write_text(TINY)
    settings = ("device=cpu", "train.epochs=1", "train.warmup_epochs=0", "evaluate.final_rounds=3")
    config = resolve_config(settings=[*settings, f"data.spec=folder:{images_folder}", "search.objectives=[top1, macs]"])
    session = start(space_file, (), config, tmp_path / "r", Reporter(quiet=True))
    assert stages.run(session, Budget(trials=6)).points
    assert build_evaluator(
        evaluator_setup(session, weights_digest(session.run)),
        evaluator_arrays(Supernet(session.space), session.data.search),
    ).evaluate(session.space.smallest())


TELLTALE = """
import os
from pathlib import Path
import nas.data.images as images
def tell(event):
    with Path(os.environ["TELLTALE"], event).open("a") as file:
        file.write(f"{os.getpid()}\\n")
def told(self, opened=images.TestSplit.open):
    tell("opened")
    return opened(self)
images.TestSplit.open = told
tell("watched")
"""
"""Run by every Python that starts (as `sitecustomize`): says which processes open a test split."""


@pytest.mark.ray
@pytest.mark.slow
def test_no_process_of_a_search_opens_the_test_split(tmp_path, monkeypatch):
    """Supernet trials, Ray workers, a search in this process, stand-alone trainings: only `export` opens it."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(TELLTALE)
    monkeypatch.setenv("TELLTALE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "hook"))  # which workers get
    monkeypatch.setattr(images.TestSplit, "open", images.TestSplit.open)  # put back what the next line replaces
    exec(TELLTALE, {})
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "images" / "train", per_class=30)
    write_folder(tmp_path / "images" / "test", per_class=4, seed=1)
    run, data = tmp_path / "r", f"--data=folder:{tmp_path / 'images'}"
    arguments = run_arguments(run, "--trials=6", data, "--supernet-trials=2", "--set=tune.keep=1", workers=2)
    assert command(*arguments).code == 0
    (one,) = (path.parent for path in (run / "supernets").glob("*/front.json"))
    assert command("search", one, "--trials=8", "--workers=0").code == 0
    assert command("trust", one, "--architectures=4", "--seeds=1", "--epochs=1", "--workers=0").code == 0
    assert len(set((tmp_path / "watched").read_text().split())) >= 3, "this process and two workers"
    assert not (tmp_path / "opened").exists()
    (kept,) = (tmp_path / "cache").glob("*.images")
    assert "-train-" in kept.name  # nor are test images kept anywhere
    assert command("export", run, "--pick=top1", "--to", tmp_path / "bundle").code == 0
    assert set((tmp_path / "opened").read_text().split()) == {str(os.getpid())}
