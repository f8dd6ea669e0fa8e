"""Units on a real Ray cluster of two nodes: the bits of a local run, whoever dies."""

import json

import pytest

import mimic_keras
from tests.tiny import tiny, write


@pytest.fixture(scope="module")
def cluster():
    """The address of two nodes with one slot each."""
    pytest.importorskip("ray", reason="Ray, the extra [ray], is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else 127.0.0.1 becomes the interface's address
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes.address
        nodes.shutdown()


def artefacts(home):
    """{kind/key: {file: digest}} of what is finished."""
    records = [*home.glob("*/[!.]*/artifact.json")]
    return {str(file.parent.relative_to(home)): json.loads(file.read_text())["files"] for file in records}


def run(folder, file, **options):
    places = {"home": folder / "home", "runs_dir": folder / "runs", "saved_models_dir": folder / "exports"}
    return mimic_keras.run(file, **places, export=False, **options)


def test_a_run_has_the_bits_of_a_local_run(tmp_path, cluster):
    file = write(tmp_path, tiny())
    here, there = run(tmp_path / "here", file), run(tmp_path / "there", file, cluster=cluster)
    assert artefacts(tmp_path / "there" / "home") == artefacts(tmp_path / "here" / "home")
    assert there.metrics["models"] == here.metrics["models"]
    made = {name: (stage["made"], stage["reused"]) for name, stage in there.metrics["stages"].items()}
    assert {name: made[name] for name in ("teachers", "logits", "student")} == {
        "teachers": (2, 0),
        "logits": (6, 0),
        "student": (2, 0),
    }
