"""Damage to every kind of file that a sweep, a search and an export leave (of a run: tests/test_survival.py)."""

import re
import shutil
from pathlib import Path

import pytest

from tests.test_survival import DAMAGES
from tests.test_sweeping import sweep_file
from tests.tiny import command, tiny, write

pytestmark = pytest.mark.slow
MODELS = ("saved_model.pb", "variables.index", "variables.data-00000-of-00001", "examples.npz")
CONVERTED = ("student.tflite", "student_dynamic.tflite", "student_int8.tflite", "student.onnx")


def kinds_of(folder: Path) -> list[Path]:
    """One file of every kind below `folder`: alike are those at the same depth whose names differ in digits alone."""
    found: dict[tuple[int, str], Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size and "damaged" not in path.parts:
            parts = path.relative_to(folder).parts
            found.setdefault((len(parts), parts[0] + re.sub(r"[0-9a-f]{8,}|\d+", "#", parts[-1])), path)
    return list(found.values())


def damage_each(folder: Path, damage: str, again, results, capsys) -> int:
    """How many files were damaged; after each, `again` gives the same results, if need be after what it tells to do."""
    expected, damaged = results(), 0
    for path in kinds_of(folder):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
        capsys.readouterr()
        code = again()
        if code:  # one message that says what to remove, and it helps
            said = capsys.readouterr().err
            assert code in (1, 2)
            assert path.name in said, path
            assert "remove" in said, said
            shutil.rmtree(path.parent) if f"remove the folder {path.parent}" in said else path.unlink()
            assert again() == 0, path
        assert results() == expected, path
        damaged += 1
    return damaged


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_of_a_sweep(damage, tmp_path, capsys):
    places = ("--home", tmp_path / "files/home", "--runs_dir", tmp_path / "files/runs")
    file = sweep_file(tmp_path, axes={"loss": ["kl", "logit_l2"], "seed": [0]})

    def again():
        return command("sweep", file, *places)

    assert again() == 0
    table = tmp_path / "files/runs/table/results.csv"
    assert damage_each(tmp_path / "files", damage, again, lambda: _untimed(table), capsys) >= 12


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_of_a_search(damage, tmp_path, capsys):
    experiment = tiny(search={"trials": 3, "random_trials": 2}, baseline=None)
    experiment["student"]["architecture"]["linear_units"] = {"tune": {"min": 2, "max": 9}}
    file = write(tmp_path, experiment)
    places = ("--home", tmp_path / "files/home", "--runs_dir", tmp_path / "files/runs")

    def again():
        return command("tune", file, *places)

    def results():
        return (tmp_path / "files/runs/tiny/best.yaml").read_text()

    assert again() == 0
    assert damage_each(tmp_path / "files", damage, again, results, capsys) >= 12


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_of_an_export(damage, tmp_path, capsys):
    """`verify` refuses what it would not serve: of the files that hold the student, every one."""
    formats = ["litert", "litert_dynamic", "litert_int8", "onnx"]
    export = {"formats": formats, "minimum_agreement": 0, "maximum_error_increase": 1}
    file = write(tmp_path, tiny(baseline=None, export=export))
    places = ("--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports")
    assert command("run", file, *places) == 0
    (version,) = (tmp_path / "exports" / "tiny").glob("[0-9]*")
    assert command("verify", version) == 0
    written = {path.name: path for path in version.rglob("*") if path.is_file()}
    assert set(MODELS + CONVERTED) <= set(written), written
    for name in (*MODELS, *CONVERTED):
        content = written[name].read_bytes()
        written[name].write_bytes(DAMAGES[damage](content))
        capsys.readouterr()
        assert command("verify", version) != 0, name
        assert len(capsys.readouterr().err.strip().splitlines()) == 1, name
        written[name].write_bytes(content)
    assert command("verify", version) == 0


def _untimed(table: Path) -> list[list[str]]:
    """The rows of a sweep's table without what differs from run to run: seconds and times."""
    rows = [line.split(",") for line in table.read_text().splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if "second" not in name and "time" not in name]
    return [[row[place] for place in kept] for row in rows]
