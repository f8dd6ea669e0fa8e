"""Built-in experiments by name; a file goes before a name."""

from pathlib import Path

import pytest

from mimic_keras.contracts import InputError
from mimic_keras.experiment import builtin
from tests.tiny import command, read_cells

ROOT = Path(__file__).parent.parent


def test_the_built_in_experiments_are_those_of_the_repository():
    files = {file.relative_to(builtin.FOLDER) for file in builtin.FOLDER.rglob("*")}
    assert files == {file.relative_to(ROOT / "experiments") for file in (ROOT / "experiments").rglob("*")}
    assert Path("parts/urban_students.yaml") in files


def test_a_name_is_a_built_in_experiment_and_a_file_of_this_name_goes_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert builtin.find_file("quickstart") == builtin.FOLDER / "quickstart.yaml"
    (tmp_path / "quickstart").touch()
    assert builtin.find_file("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "quikstart",
            "quikstart: no such file, and no experiment of this name. Did you mean 'quickstart'? There are: ",
        ),
        ("zzz", "zzz: no such file, and no experiment of this name. There are: ba_figure1, "),
        ("mine.yaml", "mine.yaml: cannot be read: No such file or directory"),
        (
            "experiments/quickstart.yaml",
            "experiments/quickstart.yaml: cannot be read: No such file or directory; "
            "'quickstart' alone is the one that comes with the program",
        ),
    ],
)
def test_what_is_neither_is_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        builtin.find_file(given)
    assert str(caught.value).startswith(message)
    assert ("comes with" in str(caught.value)) == ("comes with" in message)


def test_a_sweep_finds_the_experiment_that_it_changes():
    cells = read_cells(builtin.find_file("ba_figure1_small"))[1]
    assert {cell.source.folder for cell in cells} == {builtin.FOLDER}


def test_a_command_refuses_another_name(capsys):
    assert command("validate", "none") == 2
    assert "mimic-keras: none: no such file, and no experiment of this name" in capsys.readouterr().err
