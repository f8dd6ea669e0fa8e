"""Warm-up requests: as many as the server accepts, in its own records, and checked before an export is published."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mimic_keras.contracts import RunError
from mimic_keras.serving import verification, warmup
from mimic_keras.serving.session_loader import ServingError
from tests.small_export import write_export


def requests(count):
    return [warmup.Request("serve_images", {"images": np.zeros([1, 8, 8, 1], np.uint8)})] * count


@pytest.mark.parametrize("count", [0, 1001])
def test_as_many_warm_up_requests_as_the_server_takes(count, tmp_path):
    with pytest.raises(RunError, match=r"warm-up requests; TensorFlow Serving takes 1 to 1,000"):
        warmup.write(tmp_path, "digits", requests(count))
    assert not (tmp_path / warmup.FILE).exists()


def test_requests_come_back_in_order(tmp_path):
    given = [warmup.Request(f"serve_{number}", {"x": np.full([2], number)}) for number in range(3)]
    warmup.write(tmp_path, "digits", given)
    found = list(warmup.read(tmp_path))
    assert [(each.signature, each.inputs["x"].tolist()) for each in found] == [
        ("serve_0", [0, 0]),
        ("serve_1", [1, 1]),
        ("serve_2", [2, 2]),
    ]


def test_an_export_without_requests_has_none(tmp_path):
    assert list(warmup.read(tmp_path)) == []


def test_they_are_the_servers_records(tmp_path):
    warmup.write(tmp_path, "digits", requests(1000))
    assert len(list(warmup.read(tmp_path))) == 1000
    record = next(iter(tf.data.TFRecordDataset(str(tmp_path / warmup.FILE)))).numpy()
    found = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert (found.model_spec.name, found.model_spec.signature_name) == ("digits", "serve_images")
    assert [each.size for each in found.inputs["images"].tensor_shape.dim] == [1, 8, 8, 1]


def test_a_bad_request_is_found_before_publishing(tmp_path):
    write_export(tmp_path)
    bad = warmup.Request("serve_images", {"images": np.zeros([8, 8, 1], np.uint8)})
    warmup.write(tmp_path, "tiny", [*requests(1), bad])
    with pytest.raises(ServingError, match="not compatible with expected shape"):
        verification._verify(tmp_path, lambda what: None)
    (tmp_path / warmup.FILE).write_bytes((tmp_path / warmup.FILE).read_bytes()[:-3])
    with pytest.raises(RunError, match="tf_serving_warmup_requests is damaged"):
        verification._verify(tmp_path, lambda what: None)
