"""Attacks on sweeps: a file that changes meanwhile (M10), texts that are markup elsewhere (Low), searches as cells."""

import csv
import html

import numpy as np
import pytest

from mimic_keras.experiment.file import has_ranges
from mimic_keras.reporting.tables import to_markdown
from mimic_keras.sweeping import page, running
from mimic_keras.sweeping.errors import pack
from tests.test_sweeping import read, sweep_file
from tests.tiny import command, tiny, write

MARKUP = ["[red]a[/red]", "<b>|c", "$d^$", "e\n| f", "\\| ±g"]


def done(planned, errors=(0.25,)):
    cost = {"parameters": 5, "multiply_adds": 4, "validation": {}}
    models = [{"student": {**cost, "test": {"error_rate": error}}} for error in errors]
    history = {"val_error_rate": [0.5, 0.25]}
    unknown = pack(np.zeros(0), {}, {})
    return running.Outcome(
        planned, "done", [{"models": each, "history": history, "errors": unknown} for each in models]
    )


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_m10_a_file_that_changes_during_the_sweep_changes_nothing(tmp_path, monkeypatch, change):
    file = sweep_file(tmp_path, axes={"loss": ["kl"], "seed": [0]})
    text = file.read_text()

    def run_cells(sweep, cells, folder, workspace):
        folder.mkdir(parents=True, exist_ok=True)
        file.unlink()
        if change == "edited":
            file.write_text("edited: meanwhile")
        yield [done(each) for each in cells]

    monkeypatch.setattr(running, "run_cells", run_cells)
    options = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--set", "student.training.epochs=1")
    assert command("sweep", file, *options) == 0
    shown = html.unescape((tmp_path / "runs" / "table" / "report.html").read_text(encoding="utf-8"))
    assert f"# --set student.training.epochs=1\n{text.strip()}" in shown
    assert "edited: meanwhile" not in shown


@pytest.mark.parametrize("axis", ["seed", "$se|<i>^$"])
def test_low_markup_in_axes_is_text(tmp_path, axis):
    choices = {value: number for number, value in enumerate(MARKUP)}
    sweep, cells = read(
        tmp_path,
        axes={"loss": ["kl"], axis: MARKUP},
        set={"student.loss": {"name": {"axis": "loss"}}, "student.standardize_logits": False}
        | {"student.seed": {"axis": axis, **choices}},
        mean_over=None,
        figures=[{"x": axis}, {"x": "epoch", "series": axis}, {"x": "parameters", "series": axis}],
    )
    outcomes = [done(each) for each in running.plan_cells("x", cells, tmp_path)]
    page.write_page(sweep, outcomes, tmp_path, "a: <script>", {})
    shown = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert all(html.escape(value, quote=False) in shown for value in MARKUP)
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8", newline="")))
    assert [row[axis] for row in rows] == MARKUP
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(MARKUP)
    assert len({line.replace(r"\\", "").replace(r"\|", "").count("|") for line in table}) == 1


def test_low_markdown_by_hand():
    assert to_markdown(["a|b"], [{"a|b": "c\\|d\r\n<e>"}]) == [r"| a\|b |", "|---|", r"| c\\\|d \<e> |"]


def test_searches_and_experiments_are_told_apart_cell_by_cell(tmp_path):
    """A cell is a search if it has ranges or a `search` section of its own, whatever its neighbours have."""
    rate = {"axis": "kind", "search": {"tune": {"min": 0.001, "max": 0.1, "sampling": "log"}}, "run": 0.01}
    setting = {"student.training.optimizer.learning_rate": rate, "search": {"axis": "kind", "search": {"trials": 3}}}
    base = tiny(baseline=None)
    file = sweep_file(tmp_path, axes={"kind": ["search", "run"]}, set=setting, mean_over=None, experiment=base)
    assert command("validate", file) == 0
    _, cells = read(tmp_path, axes={"kind": ["search", "run"]}, set=setting, mean_over=None, experiment=base)
    assert [has_ranges(cell.source.given) for cell in cells] == [True, False]
    planned = running.plan_cells("x", cells, tmp_path)
    assert [each.search is not None for each in planned] == [True, False]
    assert [each.trainings for each in planned] == [3, 1]


def test_a_range_without_a_search_section_is_named_with_its_cell(tmp_path, capsys):
    rate = {"axis": "kind", "search": {"tune": {"min": 0.001, "max": 0.1}}, "run": 0.01}
    setting = {"student.training.optimizer.learning_rate": rate}
    file = sweep_file(tmp_path, axes={"kind": ["search", "run"]}, set=setting, mean_over=None)
    write(tmp_path, tiny(baseline=None))
    assert command("validate", file) == 2
    error = capsys.readouterr().err
    assert "search [cell kind search]: required for a search, as in search: {trials: 20}" in error
