"""What an artefact was made from is what its key says: code, data and loaded models, at the time they were used."""

import keras
from mimic_keras_teachers import SavedModel

from mimic_keras.contracts import files_below


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
