"""What the documents show works: every experiment validates to its numbers, every command of the README runs."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from mimic_keras import experiment_file, plan
from tests.tiny import command, write

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
# CIFAR's nets of Ba & Caruana 2014, Table 2: (parameters, multiply-adds). Maps are 32 x 32, halved by every pooling.
HIDDEN_30K = 1200 * 30000 + 30000 + 30000 * 10 + 10
SHALLOW = {
    filters: (
        75 * filters + filters + 16 * 16 * filters * 1200 + HIDDEN_30K,
        32 * 32 * 75 * filters + 16 * 16 * filters * 1200 + 1200 * 30000 + 30000 * 10,
    )
    for filters in (64, 128)
}
DEEP = (
    (27 + 1) * 128 + 2 * (9 * 128 + 1) * 128 + 4 * 4 * 128 * 1000 + 1000 + 10010,
    32 * 32 * 27 * 128 + (16 * 16 + 8 * 8) * 9 * 128 * 128 + 4 * 4 * 128 * 1000 + 10000,
)


def mlp(*widths):
    weights = sum(before * after for before, after in itertools.pairwise(widths))
    return weights + sum(widths[1:]), weights


def bottleneck(inputs, linear, *widths):
    parameters, weights = mlp(linear, *widths)
    return parameters + inputs * linear, weights + inputs * linear


def timit_cnn(filters, kernel, *hidden):
    """40 mel bins of 45 channels, "valid" convolution, pooling by 3 with the rest, 45 energies beside."""
    bins = 40 - kernel + 1
    parameters, weights = mlp(-(-bins // 3) * filters + 45, *hidden, 183)
    return parameters + kernel * 45 * filters + filters, weights + bins * kernel * 45 * filters


TIMIT_ECNN = {f"teacher/{place}": timit_cnn(200, 4 + place, 2000, 2000, 2000) for place in range(9)}
# {experiment: {net: (parameters, multiply-adds)}}
EXPECTED = {
    "cifar10_small": {
        # 32x32x3 - 32 - pool - 64 - pool - 128 - pool - 256 - 10, 3 x 3 filters; batch normalisation in place of biases
        "teacher/0": (
            9 * (3 * 32 + 32 * 64 + 64 * 128) + 4 * 4 * 128 * 256 + 2 * (32 + 64 + 128 + 256) + 2570,
            9 * (1024 * 3 * 32 + 256 * 32 * 64 + 64 * 64 * 128) + 4 * 4 * 128 * 256 + 2560,
        ),
        "student": (3072 * 300 + 300 * 2000 + 2000 + 20010, 3072 * 300 + 300 * 2000 + 20000),
        "baseline": (3072 * 300 + 300 * 2000 + 2000 + 20010, 3072 * 300 + 300 * 2000 + 20000),
    },
    "cifar10_dnn": {
        "student": (3072 * 2000 + 2000 + 2000 * 2000 + 2000 + 20010, 3072 * 2000 + 2000 * 2000 + 20000),
    },
    "cifar10_snn_30k": {"student": SHALLOW[128]},
    "cifar10_cnn": {"student": DEEP},
    "cifar10_snn_cnn_mimic_30k_64c": {"teacher/0": DEEP, "student": SHALLOW[64]},
    "cifar10_snn_cnn_mimic_30k_128c": {"teacher/0": DEEP, "student": SHALLOW[128]},
    "cifar10_snn_ecnn_mimic_30k": {**{f"teacher/{place}": DEEP for place in range(4)}, "student": SHALLOW[128]},
    "timit_demo": {f"teacher/{place}": timit_cnn(48, 6 + 2 * place, 256, 256) for place in range(3)}
    | {net: bottleneck(1845, 100, 1000, 183) for net in ("student", "baseline")},
    "timit_small": {f"teacher/{place}": timit_cnn(64, 6 + 2 * place, 512, 512) for place in range(3)}
    | {net: bottleneck(1845, 128, 2000, 183) for net in ("student", "baseline")},
    "timit_small_dnn": {"student": mlp(1845, 800, 800, 800, 183)},
    "timit_dnn": {"student": mlp(1845, 2000, 2000, 2000, 183)},
    "timit_cnn": {"student": timit_cnn(200, 8, 2000, 2000, 2000)},
    "timit_snn_8k": {"student": mlp(1845, 8000, 183)},
    "timit_snn_50k": {"student": mlp(1845, 50_000, 183)},
    "timit_snn_400k": {"student": bottleneck(1845, 250, 400_000, 183)},
    "timit_8k": TIMIT_ECNN | {"student": bottleneck(1845, 250, 8000, 183)},
    "timit_160k": TIMIT_ECNN | {"student": bottleneck(1845, 250, 160_000, 183)},
    "timit_400k": TIMIT_ECNN | {"student": bottleneck(1845, 250, 400_000, 183)},
    "quickstart": {
        # 8x8x1 - 16 - 16 - pool - 32 - 32 - pool - 64 - 10, 3 x 3 filters
        "teacher/0": (
            160 + 2320 + 4640 + 9248 + 8256 + 650,
            64 * (144 + 2304) + 16 * (4608 + 9216) + 128 * 64 + 640,
        ),
        "student": (64 * 32 + 32 * 1200 + 1200 + 12010, 64 * 32 + 32 * 1200 + 12000),
        "baseline": (64 * 32 + 32 * 1200 + 1200 + 12010, 64 * 32 + 32 * 1200 + 12000),
    },
}


def test_every_experiment_is_listed_here():
    assert sorted(EXPECTED) == [file.stem for file in EXPERIMENTS]


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiment_validates_and_its_nets_have_the_stated_size(file):
    planned = plan.make(experiment_file.read(file))
    assert planned.experiment.name == file.stem
    counted = re.search(r"counted here: ([\d,]+)", file.read_text())
    assert not counted or int(counted[1].replace(",", "")) == planned.costs["student"].parameters
    for net, (parameters, multiply_adds) in EXPECTED[file.stem].items():
        assert (planned.costs[net].parameters, planned.costs[net].multiply_adds) == (parameters, multiply_adds)


def test_the_page_on_the_papers_has_the_counts_of_the_files():
    text = (ROOT / "docs" / "papers.md").read_text()
    rows = re.findall(r"\| ([\d,]+) \| (the teacher of )?\[((?:cifar10|timit)_\w+)\]", text)
    assert len(rows) == 7 + 9
    for counted, teacher, name in rows:
        members = [EXPECTED[name][net][0] for net in EXPECTED[name] if net.startswith("teacher")]
        expected = sum(members) if teacher else EXPECTED[name]["student"][0]
        assert int(counted.replace(",", "")) == expected, name


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiment_opens_with_its_source_command_cost_and_result(file):
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    for word, content in {"Source": r"\w", "Command": "mimic-keras run", "Cost": r"\w", "Expected": r"\d %"}.items():
        assert any(re.match(f"# {word}: .*{content}", line) for line in head), word


def test_the_experiment_of_the_documentation_validates(tmp_path):
    (block,) = re.findall(r"```yaml\n(name: example.*?)```", (ROOT / "docs" / "experiments.md").read_text(), re.S)
    assert command("validate", write(tmp_path, block)) == 0


def readme_commands():
    text = (ROOT / "README.md").read_text()
    return [shlex.split(line)[1:] for line in re.findall(r"^    \S*(mimic-keras run experiments.*)$", text, re.M)]


def test_quickstart_and_the_commands_of_the_readme(tmp_path, monkeypatch, capsys):
    (recipe,) = re.findall(r"^\t\$\(BIN\)/(mimic-keras run .*)$", (ROOT / "Makefile").read_text(), re.M)
    monkeypatch.chdir(ROOT)
    places = ["--home", tmp_path / "home", "--runs_dir", tmp_path / "runs", "--saved_models_dir", tmp_path / "exports"]
    assert command(*shlex.split(recipe)[1:], *places) == 0
    printed = capsys.readouterr().out
    for piece in ("teacher/2", "baseline", "agreement", "Report:", "Export:"):
        assert piece in printed
    models = json.loads((tmp_path / "runs" / "quickstart" / "metrics.json").read_text())["models"]
    assert models["teacher"]["test"]["error_rate"] < 0.07
    assert models["student"]["test"]["error_rate"] < models["baseline"]["test"]["error_rate"] + 0.02
    assert models["student"]["test"]["agreement"] > 0.85
    commands = readme_commands()
    assert commands
    for arguments in commands:
        assert command(*arguments, *places) == 0
        assert "teacher/0: reused" in capsys.readouterr().err


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")], ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
