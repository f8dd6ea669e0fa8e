"""What the process that runs a file does with a SavedModel, and how requests are timed."""

import numpy as np
import pytest

from mimic_keras.serving import answering
from mimic_keras.serving.runtimes import FileError
from tests.small_export import write_export


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """(an export's folder, its net)"""
    folder = tmp_path_factory.mktemp("export")
    return folder, write_export(folder)


@pytest.mark.long
def test_a_saved_model_answers_all_examples_the_first_and_further_rows(export, tmp_path):
    folder, net = export
    inputs = np.random.default_rng(0).random([3, 8, 8, 1], np.float32)
    rows = np.random.default_rng(1).random([130, 8, 8, 1], np.float32)  # two batches and a part
    np.save(tmp_path / "rows.npy", rows)
    found = answering.answer(folder, "serving_default", {"inputs": inputs}, tmp_path / "rows.npy")
    assert set(found.whole) == set(found.first) == {"logits", "probabilities", "class"}, "a label is text"
    np.testing.assert_allclose(found.whole["logits"], net(inputs).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.first["logits"], net(inputs[:1]).numpy(), atol=1e-6)
    np.testing.assert_allclose(found.rows, net(rows).numpy(), atol=1e-6)
    assert found.latency == {}


@pytest.mark.long
def test_a_request_that_is_refused_names_the_place(export):
    with pytest.raises(FileError, match="cannot be run: "):
        answering.answer(export[0], "serving_default", {"inputs": np.zeros([1, 9, 9, 1], np.float32)})


def test_a_request_of_any_size_is_timed_until_there_are_enough():
    seen = []
    found = answering.measure_latency(lambda request: seen.append(request["a"]), {"a": np.arange(3)}, 7)
    assert all(each.tolist() == [0, 1, 2, 0, 1, 2, 0] for each in seen)
    assert len(seen) == found["calls"] + 3, "three to warm up"
    assert answering.LEAST_CALLS <= found["calls"] <= answering.MOST_CALLS
    assert 0 <= found["p50"] <= found["p99"]
