"""What an artefact was made from is what its key says: code, data and loaded models, at the time they were used."""

import importlib.metadata
import json
import os
import sys

import keras
import numpy as np
import pytest
from mimic_keras_teachers import SavedModel

from mimic_keras.contracts import RunError, files_below
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.planning import sources
from mimic_keras.planning.components import bind
from mimic_keras.planning.plugins import installed
from mimic_keras.planning.sources import compute_digest
from mimic_keras.stages.workspace import Workspace
from mimic_keras.training import models
from tests.tiny import command, tiny, write

NET = """
import keras

def net(input_shape, num_classes, /):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes)])
"""
# Reads its file again in `split`, as the example in docs/plugins.md once did.
POINTS = """
import hashlib
from pathlib import Path
import numpy as np
from mimic_keras.contracts import ArraySplit, Dataset, DatasetInfo

class Points(Dataset):
    def __init__(self, file: Path):
        self.file = file

    @property
    def info(self):
        return DatasetInfo("points", "1", (2,), 2, ("a", "b"))

    def prepare(self, data_dir):
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def split(self, name, seed=0):
        inputs = np.load(self.file)
        return ArraySplit(inputs, inputs[:, 0] > 0)
"""
TRAINING = {"epochs": 1, "batch_size": 128, "optimizer": {"name": "sgd", "learning_rate": 0.01}}


def install(folder, name, group, entry_point, files, record=(), project=None):
    """A distribution `name` with {file: content} in `folder`, or in `project` if it is editable, as pip leaves it."""
    for file, content in files.items():
        (place := (project or folder) / file).parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mimic_keras.{group}]\n{name} = {entry_point}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in record))
    if project:
        origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(origin))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder whose distributions are installed."""
    (folder := tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(folder)
    installed.cache_clear()
    yield folder
    installed.cache_clear()


def digest(site):
    (distribution,) = importlib.metadata.distributions(path=[str(site)])
    (entry_point,) = distribution.entry_points
    return compute_digest(entry_point)


def changes_digest(site, file, content="changed"):
    before = digest(site)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return digest(site) != before


FILES = {
    "attack_m14/__init__.py": "def net():\n    from attack_m14_helper import units\n",
    "attack_m14/table.csv": "1",
    "attack_m14_helper/__init__.py": "import json, attack_m14_single, attack_other",
    "attack_m14_single.py": "",
}


@pytest.mark.parametrize("is_editable", [False, True])
def test_m14_helpers_and_data_files_are_part_of_the_key(is_editable, site, tmp_path, monkeypatch):
    project = tmp_path / "project" if is_editable else None
    monkeypatch.syspath_prepend(project or site)
    install(site, "attack", "losses", "attack_m14:net", FILES, () if is_editable else FILES, project)
    place = project or site
    for name in FILES:
        assert changes_digest(site, place / name, FILES[name] + "\n"), name
    assert changes_digest(site, place / "attack_m14" / "new.txt")
    assert not changes_digest(site, place / "attack_m14" / "__pycache__" / "x.pyc")
    assert not changes_digest(site, place / "attack_m14" / ".table.csv.swp")
    assert not changes_digest(site, place / "tests" / "test_net.py")
    environment = place / ".venv" / "lib" / "site-packages"
    monkeypatch.syspath_prepend(environment)
    assert not changes_digest(site, environment / "attack_other.py")


def test_m14_the_same_files_have_one_digest_wherever_they_are_installed(site, tmp_path, monkeypatch):
    install(site, "attack", "losses", "attack_m14:net", FILES, FILES)
    wheel, editable = digest(site), tmp_path / "editable"
    editable.mkdir()
    install(editable, "attack", "losses", "attack_m14:net", FILES, (), tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    assert digest(editable) == wheel


def test_m14_plugins_that_a_plugin_requires_are_part_of_the_key(monkeypatch):
    """timit_cnn is built from the parts of the architectures, in another distribution."""
    entry_point = installed("architecture")["timit_cnn"].entry_point
    assert [found.module for found in sources._required_plugins(entry_point.dist)] == ["mimic_keras_architectures"]
    whole = sources.compute_digest(entry_point)
    monkeypatch.setattr(sources, "_required_plugins", lambda _: [])
    assert sources.compute_digest(entry_point) != whole


def learn_labels(folder, **sections):
    """The arguments of a run whose student learns labels in one pass."""
    student = {"architecture": {"name": "mlp", "hidden_units": [4]}, "training": TRAINING}
    experiment = {"name": "tiny", "dataset": {"name": "digits"}, "student": student, **sections}
    places = ("--home", folder / "home", "--runs_dir", folder / "runs", "--saved_models_dir", folder / "saved_models")
    return ("run", write(folder, experiment), *places)


def kept(folder, kind):
    """What is in the home folder of a kind, finished or not."""
    return [path.name for path in (folder / "home" / kind).iterdir() if path.suffix != ".lock"]


def after(monkeypatch, module, name, change):
    """Call `change()` each time after `module.name`."""
    function = getattr(module, name)

    def both(*arguments, **named):
        result = function(*arguments, **named)
        change()
        return result

    monkeypatch.setattr(module, name, both)


def test_h5_a_net_of_code_that_was_edited_while_it_trained_is_not_kept(site, tmp_path, monkeypatch, capsys):
    install(site, "attack-h5", "architectures", "attack_h5:net", {"attack_h5.py": NET}, ["attack_h5.py"])
    trained = []
    after(monkeypatch, models, "save", lambda: trained.append((site / "attack_h5.py").write_text(NET + "#")))
    arguments = learn_labels(tmp_path, student={"architecture": {"name": "attack-h5"}, "training": TRAINING})
    assert command(*arguments) == 1
    message = "attack-h5 1.0 was changed after this process imported it; what needs it is not kept. Run again"
    assert message in capsys.readouterr().err
    assert (kept(tmp_path, "students"), len(trained)) == ([], 1)
    # This process still has the old code: it says so before it trains.
    assert command(*arguments) == 1
    assert message in capsys.readouterr().err
    assert len(trained) == 1


def test_h5_the_digest_is_taken_before_the_import(site):
    code = NET + "open(__file__, 'a').write('#')\n"
    install(site, "attack-import", "architectures", "attack_import:net", {"attack_import.py": code})
    plugin = installed("architecture")["attack-import"]
    before = compute_digest(plugin.entry_point)
    plugin.parameters()
    assert plugin.digest == before
    with pytest.raises(RunError, match=r"attack-import 1\.0 was changed after"):
        plugin.check_unchanged()


@pytest.fixture
def points(site, tmp_path):
    """A data set's file, and the data set as an experiment names it."""
    install(site, "attack_points", "datasets", "attack_h6:Points", {"attack_h6.py": POINTS}, ["attack_h6.py"])
    sys.modules.pop("attack_h6", None)
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    return tmp_path / "points.npy", {"name": "attack_points", "file": str(tmp_path / "points.npy")}


def swap(file):
    """Other data of the same size, with the time of the old file."""
    stat = file.stat()
    np.save(file, -np.load(file))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def prepare(spec, home):
    component = bind("dataset", spec, Place(), Problems("test"))
    return Workspace(home).prepare(component, 0)


def test_h6_data_swapped_before_a_split_reads_it_is_refused(points, tmp_path):
    file, spec = points
    data = prepare(spec, tmp_path / "home")
    data.split("train")
    swap(file)
    with pytest.raises(RunError, match="data set attack_points: its data was changed after it was read"):
        data.split("test")


def test_h6_data_removed_is_refused(points, tmp_path):
    file, spec = points
    data = prepare(spec, tmp_path / "home")
    file.unlink()
    with pytest.raises(RunError, match="its data was changed after it was read, and cannot be read again"):
        data.check_unchanged()


def test_h6_a_prepared_file_that_was_swapped_is_refused_and_a_touched_one_is_read_once_more(points, tmp_path):
    file, spec = points
    data, reads = prepare(spec, tmp_path / "home"), []
    read, kind = type(data.dataset).prepare, type(data.dataset)

    def convert(self, folder):
        reads.append(folder)
        converted = folder / "converted"
        if not converted.exists():
            converted.write_text("right")
        return read(self, folder) + converted.read_text()

    kind.prepare = convert
    try:
        data = prepare(spec, tmp_path / "home")
        data.check_unchanged()
        assert len(reads) == 1
        file.touch()
        data.check_unchanged()
        data.check_unchanged()
        assert len(reads) == 2
        (data.folder / "of_other_arguments").touch()
        data.check_unchanged()
        assert len(reads) == 2
        (data.folder / "converted").write_text("other")
        with pytest.raises(RunError, match=r"a file in .*attack_points was changed after it was read"):
            data.check_unchanged()
    finally:
        kind.prepare = read


def test_h6_a_net_trained_while_its_data_was_swapped_is_not_kept(points, tmp_path, monkeypatch, capsys):
    file, spec = points
    after(monkeypatch, models, "save", lambda: swap(file))
    assert command(*learn_labels(tmp_path, dataset=spec)) == 1
    said = capsys.readouterr().err
    assert (
        "data set attack_points: its data was changed after it was read; what needs it is not kept. Run again" in said
    )
    assert kept(tmp_path, "students") == []


def test_h6_logits_of_a_model_that_was_swapped_are_not_kept(tmp_path, monkeypatch, capsys):
    file = tmp_path / "teacher.keras"

    def save():
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
        keras.Sequential(layers).save(file)

    save()
    after(monkeypatch, models, "compile_logits", save)
    teacher = {"members": [{"teacher": {"name": "keras_file", "path": str(file)}}]}
    assert command(*learn_labels(tmp_path, teacher=teacher, student=tiny()["student"])) == 1
    assert "teacher/0: its model was changed after it was loaded; what needs it is not kept" in capsys.readouterr().err
    assert kept(tmp_path, "logits") == []


def test_m3_weights_behind_a_link_are_part_of_a_saved_model(tmp_path):
    weights, model = tmp_path / "weights", tmp_path / "model"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).export(model, verbose=False)
    (model / "variables").rename(weights)
    (model / "variables").symlink_to(weights, target_is_directory=True)
    teacher = SavedModel(model)
    before = teacher.source_digest()
    (data,) = weights.glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert teacher.source_digest() != before


def test_m3_links_in_a_circle_end(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        (tmp_path / name / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a", target_is_directory=True)
    found = [file.relative_to(tmp_path).as_posix() for file in files_below(tmp_path)]
    assert found == ["a/file", "a/other/file", "b/file", "b/other/file"]
