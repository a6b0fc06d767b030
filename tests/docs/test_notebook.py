"""The notebook of docs/ runs from its first cell to its last, and shows what it says."""

import json

import pytest
from readme_commands import ROOT

NOTEBOOK = ROOT / "docs" / "search.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", ())]
    tables = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert len(tables) == 3
    assert "hypervolume" in tables[0]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert shown[-1]["data"]["text/plain"] == "True"
    assert (tmp_path / "my_vit" / "model.safetensors").exists()


def test_the_notebook_is_kept_without_what_a_run_left():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
