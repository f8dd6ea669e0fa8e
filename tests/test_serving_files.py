"""The files of examples/serving, and what is written beside the versions, against the server's own flags and protos."""

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

from mimic_keras.serving import publishing

ROOT = Path(__file__).parents[1]
# Those of tensorflow_serving/model_servers/main.cc that our files could use.
FLAGS = set(
    "port rest_api_port rest_api_timeout_in_ms model_config_file model_config_file_poll_wait_seconds "
    "file_system_poll_wait_seconds enable_batching batching_parameters_file monitoring_config_file model_name "
    "allow_version_labels_for_unavailable_models model_base_path".split()
)
# BatchingParameters of tensorflow_serving/servables/tensorflow/session_bundle_config.proto, which the Python package
# lacks: {field: (number, type)}.
BATCHING = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "pad_variable_length_inputs": (7, None),
}


def documents(name):
    return list(YAML(typ="safe").load_all((ROOT / "examples" / "serving" / name).read_text()))


def batching_parameters():
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for name, (number, wrapper) in BATCHING.items():
        kind = descriptor_pb2.FieldDescriptorProto
        field = message.field.add(name=name, number=number, label=kind.LABEL_OPTIONAL)
        field.type = kind.TYPE_MESSAGE if wrapper else kind.TYPE_BOOL
        if wrapper:
            field.type_name = f".google.protobuf.{wrapper}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()


def test_every_flag_is_the_servers():
    (compose,) = documents("compose.yaml")
    deployment, _ = documents("kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    commands = [service["command"] for service in compose["services"].values()] + [container["args"]]
    assert len(commands) == 3
    for command in commands:
        names = {re.fullmatch(r"--([a-z_]+)(=.+)?", flag)[1] for flag in command}
        assert names <= FLAGS
        assert {"model_config_file", "batching_parameters_file"} <= names


@pytest.mark.parametrize("pads", [False, True])
def test_the_server_reads_what_is_written_beside_the_versions(tmp_path, pads):
    base = tmp_path / "quickstart"
    base.mkdir()
    publishing.write_server_files(base, pads)
    models = text_format.Parse((base / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = models.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("quickstart", "/models/quickstart", "tensorflow")
    batching = text_format.Parse((base / "batching.config").read_text(), batching_parameters())
    assert batching.max_batch_size.value == 64
    assert batching.pad_variable_length_inputs is pads


def test_the_labels_of_the_documents_are_the_servers():
    text = (ROOT / "docs" / "serving.md").read_text()
    example = re.search(r"^    model_config_list \{.*?^    \}", text, re.MULTILINE | re.DOTALL)[0]
    (model,) = text_format.Parse(example, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    assert list(model.model_version_policy.specific.versions) == [1, 2]


def test_kubernetes_finds_the_server_and_the_versions():
    deployment, service = documents("kubernetes.yaml")
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    labels = {"app": "quickstart"}
    assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"] == labels
    assert service["spec"]["selector"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models/quickstart/metadata", "port": "rest"}
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == "/models/quickstart"
    assert all(flag.partition("=")[2].startswith(mount["mountPath"]) for flag in container["args"] if "_file=" in flag)
    (volume,) = template["spec"]["volumes"]
    (kserve,) = documents("kserve.yaml")
    assert kserve["spec"]["predictor"]["model"]["modelFormat"]["name"] == "tensorflow"
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert kserve["spec"]["predictor"]["model"]["storageUri"] == f"pvc://{claim}/{mount['subPath']}"
