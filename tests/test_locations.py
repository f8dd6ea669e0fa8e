"""Paths in an experiment: relative to its file, else to the working directory, and absolute in what is written."""

from pathlib import Path

import pytest

from mimic_keras.experiment import builtin, paths
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment.file import make_source
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning.locations import anchor_paths
from tests.tiny import command, read_cells, tiny, write


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """(the experiment's folder, the working directory), both with a file "both"."""
    paths._anchor.cache_clear()
    for name in ("experiments", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "both.npy").touch()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "experiments" / "beside.npy").touch()
    (tmp_path / "work" / "here.npy").touch()
    return tmp_path / "experiments", tmp_path / "work"


def anchored(dataset, folder):
    content = tiny(dataset=dataset, teacher=None, baseline=None)
    source = anchor_paths(make_source(content, Problems("x.yaml"), folder=folder))
    assert source.given["dataset"] == source.complete["dataset"]
    return source.given["dataset"]


def test_a_path_is_beside_the_experiment_or_else_in_the_working_directory(places):
    beside, here = places
    found = anchored({"name": "arrays", "train": {"x": "both.npy", "y": "here.npy"}, "test": "neither.npy"}, beside)
    assert found["train"] == {"x": str(beside / "both.npy"), "y": str(here / "here.npy")}
    assert found["test"] == str(beside / "neither.npy")


@pytest.mark.parametrize("path", ["/absolute.npy", "~/home.npy", "s3://bucket/x"])
def test_what_is_not_relative_is_kept(places, path):
    assert anchored({"name": "arrays", "train": path}, places[0])["train"] == path


def test_a_path_for_a_built_in_experiment_is_in_the_working_directory(places):
    dataset = {"name": "arrays", "train": "neither.npy"}
    assert anchored(dataset, builtin.FOLDER)["train"] == str(places[1] / "neither.npy")
    assert anchored(dataset, builtin.FOLDER / "parts")["train"] == str(places[1] / "neither.npy")


def test_only_paths_are_changed(places):
    dataset = {"name": "digits", "copies": 1, "shift": 1}
    assert anchored(dataset, places[0]) == dataset
    assert anchored({"name": "no_such", "train": "both.npy"}, places[0])["train"] == "both.npy"


def test_paths_of_a_transfer_section_are_those_of_the_data_set(places):
    content = tiny(dataset={"name": "arrays", "train": "both.npy"}, transfer={"unlabelled": "beside.npy", "copies": 2})
    source = anchor_paths(make_source(content, Problems("x.yaml"), folder=places[0]))
    assert source.given["transfer"] == {"unlabelled": str(places[0] / "beside.npy"), "copies": 2}
    assert source.complete["transfer"] == source.given["transfer"]


def test_an_experiment_without_a_file_is_left_as_it_is():
    assert anchored({"name": "arrays", "train": "both.npy"}, None)["train"] == "both.npy"


def test_a_cell_has_the_folder_of_the_experiment_that_it_changes(places):
    folder = places[0] / "parts"
    folder.mkdir()
    write(folder, tiny())
    axes = {"axes": {"seed": [0, 1]}, "set": {"seed": {"axis": "seed"}}}
    file = write(places[0], {"name": "table", "experiment": "parts/experiment.yaml", **axes})
    assert {cell.source.folder for cell in read_cells(file)[1]} == {folder}
    file = write(places[0], {"name": "table", "experiment": tiny(), **axes})
    assert {cell.source.folder for cell in read_cells(file)[1]} == {places[0]}


def test_validate_notes_data_that_is_missing(places, capsys):
    members = [{"teacher": {"name": "trained", "architecture": {"name": "mlp", "hidden_units": [4]}}}]
    content = tiny(dataset={"name": "cifar10", "root": "nowhere"}, baseline=None)
    content["teacher"]["members"] = members
    assert command("validate", write(places[0], content)) == 0
    note = f"note        data set cifar10: {places[0] / 'nowhere'} does not exist; a run needs it"
    assert note in capsys.readouterr().out.splitlines()


def test_a_document_knows_its_folder(places):
    assert experiment_file.read(write(places[0], tiny())).source().folder == places[0]
    assert experiment_file.read(Path("../experiments/experiment.yaml")).folder == Path("../experiments")
