"""The files of examples/cluster for Ray: their syntax, and commands and options that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mimic_keras.interface.arguments import parse

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"


@pytest.fixture(scope="module")
def job():
    return YAML(typ="safe").load((FOLDER / "kuberay.yaml").read_text())


@pytest.fixture(scope="module")
def script():
    """The commands of the script, each on one line."""
    text = (FOLDER / "ray-slurm.sh").read_text().replace("\\\n", " ")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def ray():
    """{command of Ray: its options}."""
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray, the extra [ray], is not installed")
    commands = scripts.cli.commands.items()
    return {name: {option for each in command.params for option in each.opts} for name, command in commands}


def groups(job):
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_every_pod_of_kuberay_shares_the_folders_of_the_command(job):
    arguments = parse(shlex.split(job["spec"]["entrypoint"]))
    assert (arguments.command, arguments.cluster, arguments.gpus_per_task) == ("sweep", "auto", 1)
    for group in groups(job):
        (container,) = group["template"]["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        (volume,) = group["template"]["spec"]["volumes"]
        assert mount["name"] == volume["name"]
        assert volume["persistentVolumeClaim"] == {"claimName": "mimic-keras"}
        for folder in (arguments.experiment, arguments.home, arguments.runs_dir):
            assert folder.is_relative_to(mount["mountPath"])


def test_one_task_fits_on_a_worker_of_kuberay_and_none_on_the_head(job):
    head, worker = groups(job)
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert worker["minReplicas"] == worker["replicas"] == worker["maxReplicas"]


def test_the_options_of_ray_exist(job, script, ray):
    for group in groups(job):
        assert {f"--{name}" for name in group["rayStartParams"]} <= ray["start"]
    (resources,) = (line for line in script if line.startswith("resources="))
    assert set(re.findall(r"--[a-z-]+", resources)) <= ray["start"]
    found = re.findall(r"\bray ([a-z-]+) ([^;&]*)", "\n".join(line for line in script if "ray " in line))
    assert [name for name, _ in found] == ["start", "health-check", "start"]
    for name, options in found:
        assert set(re.findall(r"--[a-z-]+", options)) <= ray[name]


def test_the_script_for_slurm_is_of_bash_and_its_command_exists(script):
    subprocess.run(["bash", "-n", FOLDER / "ray-slurm.sh"], check=True)
    (line,) = (line for line in script if line.startswith("mimic-keras "))
    arguments = parse(shlex.split(line))
    assert (arguments.command, arguments.cluster, arguments.gpus_per_task) == ("sweep", "$address", 1)
