import pytest

from nas.settings.config import resolve_config
from nas.settings.paths import located, located_path, same_places

SETTINGS = ["init=file:w.pth", "teacher=local-dir:t", "evaluate.targets=[torch-cpu, 'profile:p.json']"]


@pytest.fixture
def folders(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "t").mkdir(parents=True)
        (tmp_path / name / "w.pth").write_text(name)
        (tmp_path / name / "p.json").write_text("the same")
    (tmp_path / "other" / "earlier").mkdir()
    return tmp_path / "one", tmp_path / "other"


def test_every_path_starts_at_the_first_folder_where_it_leads_to_something(folders):
    one, other = folders
    config = resolve_config(settings=[*SETTINGS, "search.seed_runs=[earlier, gone]"])
    found = located(config, folders)
    assert found.init == f"file:{one / 'w.pth'}"
    assert found.teacher == f"local-dir:{one / 't'}"
    assert found.evaluate.targets == ("torch-cpu", f"profile:{one / 'p.json'}")
    assert found.search.seed_runs == (str(other / "earlier"), "gone")
    assert found.data == config.data
    assert located(config, [other, one]).init == f"file:{other / 'w.pth'}"
    assert located(found, [other]) == found.model_copy(), "what is absolute stays"


@pytest.mark.parametrize(
    "text", ["", "timm:t", "file:", "local-dir:gone", "x" * 300, "file:a\0b", "file:~no such user/x"]
)
def test_what_leads_nowhere_stays_as_it_is(folders, text):
    assert located_path(text, folders) == text


def test_a_tilde_is_a_home(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders[0]))
    assert located_path("file:~/w.pth", folders) == f"file:{folders[0] / 'w.pth'}"
    assert located_path("~/gone", []) == str(folders[0] / "gone")


def test_places_agree_where_they_lead_to_the_same_or_to_the_same_content(folders):
    one, other = folders
    ours = {"init": f"file:{one / 'w.pth'}", "evaluate.targets": ["torch-cpu", f"profile:{one / 'p.json'}"], "seed": 0}
    asked = {
        "init": f"file:{one / 't' / '..' / 'w.pth'}",
        "evaluate.targets": ["torch-cpu", f"profile:{other / 'p.json'}"],
        "seed": 1,
    }
    assert same_places(ours, asked) == {**ours, "seed": 1}
    for another in (f"file:{other / 'w.pth'}", f"local-dir:{one / 'w.pth'}", "file:gone", "", f"file:{one / 't'}"):
        assert same_places(ours, {"init": another}) == {"init": another}
    assert same_places(ours, {"evaluate.targets": ["torch-cpu"]}) == {"evaluate.targets": ["torch-cpu"]}
