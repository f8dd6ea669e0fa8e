"""The notebook in examples/ runs from its first cell to its last, in a kernel of its own."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebooks" / "distill.ipynb"


def shown(cell):
    """What a cell printed, or its value as HTML."""
    return "".join(output.get("text") or output["data"].get("text/html", "") for output in cell.outputs)


@pytest.mark.long
def test_the_notebook_runs_and_shows_its_results(tmp_path, monkeypatch):
    monkeypatch.setenv("MIMIC_KERAS_HOME", str(tmp_path / "home"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "committed without outputs"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    table = next(shown(cell) for cell in cells if cell.source == "result")
    assert all(f"<td>{model}</td>" in table for model in ("teacher", "teacher/0", "baseline", "student"))
    assert "same class as the teacher: " in shown(cells[-2])
    assert "<td>serving_default</td>" in shown(cells[-1])
    assert (tmp_path / "runs" / "digits" / "report.html").exists()
    assert (tmp_path / "saved_models" / "digits" / "1").is_dir()
