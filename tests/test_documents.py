"""What the documents show works: every experiment validates to its numbers, every command of the README runs."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mimic_keras.experiment import file as experiment_file
from mimic_keras.planning.plan import make_plan
from mimic_keras.searching.trials import open_search
from mimic_keras.sweeping import cells, forecast, results, running
from tests.tiny import command, plan_of, read_cells, tiny, write

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
KINDS = {file: experiment_file.read(file).kind for file in FILES}
SWEEPS = [file for file in FILES if KINDS[file] == "sweep"]
EXPERIMENTS = [file for file in FILES if KINDS[file] == "experiment"]
# CIFAR's nets of Ba & Caruana 2014, Table 2: (parameters, multiply-adds). Pools over 3 with a stride of 2 leave 15, 7
# and 3 of 32 rows; filters have 5 x 5 places.
HIDDEN_30K = 1200 * 30000 + 30000 + 30000 * 10 + 10
SHALLOW = {
    filters: (
        75 * filters + filters + 15 * 15 * filters * 1200 + HIDDEN_30K,
        32 * 32 * 75 * filters + 15 * 15 * filters * 1200 + 1200 * 30000 + 30000 * 10,
    )
    for filters in (64, 128)
}


def cifar_cnn(first, second, third, *after):
    """Three convolutions, then fully connected or locally connected layers: (parameters, multiply-adds) of each."""
    convolutions = 75 * first + first + 25 * first * second + second + 25 * second * third + third
    products = 32 * 32 * 75 * first + 15 * 15 * 25 * first * second + 7 * 7 * 25 * second * third
    return convolutions + sum(weights + outputs for weights, outputs in after), products + sum(w for w, _ in after)


DEEP = cifar_cnn(128, 128, 128, (3 * 3 * 128 * 1000, 1000), (1000 * 10, 10))
STOCHASTIC = cifar_cnn(64, 64, 128, (3 * 3 * 128 * 10, 10))
LOCAL = cifar_cnn(64, 64, 64, (9 * 9 * 64 * 16, 9 * 16), (9 * 16 * 10, 10))


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
    "cifar10_single_layer_features": {"student": (16_000 * 10 + 10, 16_000 * 10)},
    "cifar10_snn_30k": {"student": SHALLOW[128]},
    "cifar10_cnn": {"student": DEEP},
    "cifar10_cnn_stochastic_pooling": {"student": STOCHASTIC},
    "cifar10_cnn_locally_connected": {"student": LOCAL},
    "cifar10_snn_cnn_mimic_30k_64c": {"teacher/0": DEEP, "student": SHALLOW[64]},
    "cifar10_snn_cnn_mimic_30k_128c": {"teacher/0": DEEP, "student": SHALLOW[128]},
    "cifar10_snn_ecnn_mimic_30k": {**{f"teacher/{place}": DEEP for place in range(4)}, "student": SHALLOW[128]},
    "timit_demo": {f"teacher/{place}": timit_cnn(48, 6 + 2 * place, 256, 256) for place in range(3)}
    | {net: bottleneck(1845, 100, 1000, 183) for net in ("student", "baseline")},
    "timit_small": {f"teacher/{place}": timit_cnn(64, 6 + 2 * place, 512, 512) for place in range(3)}
    | {net: bottleneck(1845, 128, 2000, 183) for net in ("student", "baseline")},
    "timit_small_dnn": {"student": mlp(1845, 800, 800, 800, 183)},
    "timit_dnn": {"student": mlp(1845, 2000, 2000, 2000, 183)},
    "timit_align": {"teacher/0": mlp(1845, 2000, 2000, 2000, 183), "student": bottleneck(1845, 16, 64, 183)},
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


# {sweep: (cells, distinct teachers, members, trainings of students)}
SWEPT = {
    "ba_table1": (21, 1, 9, 21),
    "ba_table2": (27, 2, 4, 27),
    "ba_figure1": (24, 2, 10, 24),
    "ba_figure2": (3, 1, 9, 3),
    "ba_figure3": (10, 5, 12, 10),
    "ba_losses": (24, 1, 9, 288),
    "urban_table1": (7, 0, 0, 420),
    "urban_table2": (37, 2, 133, 2161),
    "urban_figure1": (40, 1, 129, 2400),
    "urban_figure2": (45, 1, 129, 2700),
    "ba_losses_small": (24, 1, 3, 120),
    "ba_losses_speech": (96, 2, 6, 168),
    "ba_figure1_small": (45, 1, 3, 180),
    "ba_figure1_speech": (51, 2, 6, 126),
    "ba_figure3_small": (30, 5, 5, 30),
    "ba_figure2_speech": (12, 2, 6, 12),
    "ba_figure3_speech": (72, 12, 16, 72),
    "ba_table2_small": (15, 4, 4, 24),
    "cifar10_small_seeds": (4, 2, 6, 4),
    "urban_table2_small": (30, 1, 4, 90),
    "width_transfer_small": (63, 1, 1, 63),
}
# {sweep: {cell: what its parameters are, by hand or in EXPECTED}}; every other student has a budget
COUNTED = {
    "ba_table1": {
        "SNN-8k": EXPECTED["timit_snn_8k"]["student"][0],
        "SNN-50k": EXPECTED["timit_snn_50k"]["student"][0],
        "SNN-400k": EXPECTED["timit_snn_400k"]["student"][0],
        "DNN": EXPECTED["timit_dnn"]["student"][0],
        "CNN": EXPECTED["timit_cnn"]["student"][0],
        "SNN-MIMIC-8k": EXPECTED["timit_8k"]["student"][0],
        "SNN-MIMIC-400k": EXPECTED["timit_400k"]["student"][0],
    },
    "ba_table2": {
        "DNN": EXPECTED["cifar10_dnn"]["student"][0],
        "SNN-30k": SHALLOW[128][0],
        "single-layer features, SVM": 160_010,
        "CNN": DEEP[0],
        "CNN [21], stochastic pooling": STOCHASTIC[0],
        "CNN [11], locally connected": LOCAL[0],
        "SNN-CNN-MIMIC-30k (64c)": SHALLOW[64][0],
        "SNN-CNN-MIMIC-30k (128c)": SHALLOW[128][0],
        "SNN-ECNN-MIMIC-30k": SHALLOW[128][0],
    },
    "ba_table2_small": dict.fromkeys(  # 64 filters of 5 x 5 x 3, then 8 x 8 x 64 - 200 linear - 2,000 - 10
        (
            "labels",
            "mimic of two nets by L2",
            "mimic of two nets by T = 2",
            "mimic of one net by T = 2",
            "mimic of two nets by T = 2 with dropout",
        ),
        64 * 75 + 64 + 4096 * 200 + 200 * 2000 + 2000 + 20_010,
    ),
    "urban_table1": {  # docs/papers.md has the published 5.3, 2.5 and 5.8 million
        "76c2-mp-126c2-mp-148c4-mp-1200fc2": 5_339_350,
        "96c2-mp-171c2-mp-128c4-mp-512fc2": 2_453_729,
        "54c2-mp-158c2-mp-189c4-mp-1044fc2": 5_823_101,
    },
}
BUILT = {}  # what sweeps share is built once


def test_every_experiment_is_listed_here():
    assert sorted(EXPECTED) == [file.stem for file in EXPERIMENTS]
    assert sorted(SWEPT) == [file.stem for file in SWEEPS]
    assert [file.stem for file in FILES if KINDS[file] == "search"] == ["urban_teachers"]


def test_the_search_for_urbans_teachers_has_the_ranges_that_are_drawn_from(tmp_path):
    search = open_search(experiment_file.read(ROOT / "experiments" / "urban_teachers.yaml").source(), tmp_path)
    assert len({*search.leaders.values()}) == len(search.space) == 17  # as many as the list of section 2.7 has
    assert search.plan_example().costs["student"].parameters == 7_580_746  # 64-64 128-128 256 four times 1024-1024
    drawn = experiment_file.read(ROOT / "experiments" / "parts" / "urban_students.yaml").content["teacher"]["members"]
    assert len(drawn) == 1
    text = json.dumps(drawn[0]).replace('"draw"', '"tune"')
    given = search.source.given
    searched = {
        "teacher": {"name": "trained", "architecture": given["student"]["architecture"]},
        "copies": given["search"]["trials"],
        "dataset": given["dataset"],
        "training": given["student"]["training"],
    }
    assert json.loads(text) == searched


def test_the_nets_of_the_search_for_urbans_teachers_are_the_members_in_figure_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runs" / "urban_teachers" / "members.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("- teacher: {name: keras_file, path: /students/x/model.keras}\n")
    found = read_cells(ROOT / "experiments" / "urban_figure2.yaml", f"teacher.members={file.relative_to(tmp_path)}")[1]
    member = {"teacher": {"name": "keras_file", "path": "/students/x/model.keras"}}
    assert len(found) == 45
    for cell in found:
        assert cell.source.given["teacher"] == {"members": [member], "select": {"members": 16}, "on_divergence": "drop"}
        assert cell.source.problems.found == {}


# The 129 different members of these take minutes to plan; urban_table2_small has four.
SLOW = ("urban_table2", "urban_figure1", "urban_figure2")


@pytest.mark.long
@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem, marks=pytest.mark.slow if file.stem in SLOW else ()) for file in SWEEPS]
)
def test_sweep_has_the_stated_cells(file, tmp_path):
    """Every cell of every table and figure is a whole experiment, without any data; budgets are met to 2 %."""
    sweep, found = read_cells(file)
    assert sweep.name == file.stem
    planned = cells.collect_problems(str(file), found, lambda cell: running._plan_cell(cell, tmp_path, BUILT))
    count, teachers, members, students = SWEPT[file.stem]
    told = "\n".join(forecast.describe_sweep(sweep, planned))
    assert f"cells       {count}: " in told
    assert f"teachers    {teachers} distinct, of {members} members; {members} sets of logits" in told
    assert f"students    {students} trainings" in told
    for each in planned:
        values, parameters = each.cell.values, each.plan.costs["student"].parameters
        expected = COUNTED.get(file.stem, {}).get(values.get("system") or values.get("net"))
        budget = values.get("parameters") or (10_000_000 if file.stem == "urban_table1" else None)
        assert parameters == expected if expected else budget is None or abs(parameters / budget - 1) < 0.05


def test_the_figures_of_urban_are_the_searches_of_its_tables():
    """{sweep: {(net, parameters): experiment}}; the nets of Table 1 that are in Figure 1 have ten million."""
    cells_of = {
        name: {
            (cell.values["net"], cell.values.get("parameters", 10_000_000)): {**cell.source.given, "name": ""}
            for cell in read_cells(ROOT / "experiments" / f"urban_{name}.yaml")[1]
        }
        for name in ("table1", "table2", "figure1", "figure2")
    }
    tables = cells_of["table1"] | cells_of["table2"]
    shared = {name: cells_of[name].keys() & tables.keys() for name in ("figure1", "figure2")}
    assert [len(cells) for cells in shared.values()] == [40, 36]
    for name, keys in shared.items():
        for key in keys:
            assert cells_of[name][key] == {**tables[key], "search": {**tables[key]["search"], "best": 5}}
    assert {parameters for _, parameters in cells_of["figure2"].keys() - shared["figure2"]} == {100_000_000}
    assert tables["1 convolution (Ba & Caruana)", 70_000_000] == {
        **experiment_file.read(ROOT / "experiments" / "cifar10_snn_ecnn_mimic_30k.yaml").content,
        "name": "",
    }


def test_the_numbers_of_the_papers_are_in_the_sweeps():
    """The corners of the tables, and how many there are."""
    found = {
        name: [results.convert_paper_score(*found) for found in scores(name)]
        for name in ("ba_table1", "ba_table2", "urban_table2")
    }
    assert found["ba_table1"][::3] == [23.1, 23.0, 23.6, 21.9, 19.5, 21.6, 20.0]
    assert found["ba_table2"][::3] == [57.8, 21.8, 18.4, 15.6, 15.13, 12.0, 15.4, 15.1, 14.2]
    assert [paper["teacher"] for _, paper in scores("urban_table2")] == [93.8] * 36 + [89.0]
    corners = [found["urban_table2"][place] for place in (0, 3, 19, 20, 32, 35, 36)]
    assert corners == [65.8, 70.2, 71.5, 84.5, 91.3, 92.6, 85.8]


def test_the_table_of_sweeps_has_their_numbers():
    text = (ROOT / "docs" / "papers.md").read_text()
    rows = re.findall(r"^\| .* \| \[(\w+)\]\(.* \| ([\d,]+) \| ([\d,]+) \| [\d.e]+ \|$", text, re.M)
    assert len(rows) == 10
    for name, *numbers in rows:
        count, _, members, students = SWEPT[name]
        assert [int(number.replace(",", "")) for number in numbers] == [count, members + students], name


def scores(name):
    sweep, found = read_cells(ROOT / "experiments" / f"{name}.yaml")
    return [(sweep, cell.paper) for cell in found]


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_experiment_validates_and_its_nets_have_the_stated_size(file):
    planned = make_plan(experiment_file.read(file).source())
    assert planned.experiment.name == file.stem
    counted = re.search(r"counted here: ([\d,]+)", file.read_text())
    assert not counted or int(counted[1].replace(",", "")) == planned.costs["student"].parameters
    for net, (parameters, multiply_adds) in EXPECTED[file.stem].items():
        assert (planned.costs[net].parameters, planned.costs[net].multiply_adds) == (parameters, multiply_adds)


def test_the_page_on_the_papers_has_the_counts_of_the_files():
    text = (ROOT / "docs" / "papers.md").read_text()
    rows = re.findall(r"\| ([\d,]+) \| (the teacher of )?\[((?:cifar10|timit)_\w+)\]", text)
    assert len(rows) == 9 + 9
    for counted, teacher, name in rows:
        members = [EXPECTED[name][net][0] for net in EXPECTED[name] if net.startswith("teacher")]
        expected = sum(members) if teacher else EXPECTED[name]["student"][0]
        assert int(counted.replace(",", "")) == expected, name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_experiment_opens_with_its_source_command_cost_and_result(file):
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    for word, content in {
        "Source": r"\w",
        "Command": "mimic-keras (run|sweep|tune)",
        "Cost": r"\w",
        "Expected": r"\d %",
    }.items():
        assert any(re.match(f"# {word}: .*{content}", line) for line in head), word


def test_the_experiment_of_the_documentation_validates(tmp_path):
    (block,) = re.findall(r"```yaml\n(name: example.*?)```", (ROOT / "docs" / "experiments.md").read_text(), re.S)
    assert command("validate", write(tmp_path, block)) == 0


def yaml_blocks(page, start):
    return re.findall(rf"```yaml\n({start}.*?)```", (ROOT / "docs" / page).read_text(), re.S)


def test_the_sweep_and_the_search_of_the_documentation_validate(tmp_path):
    (tmp_path / "quickstart.yaml").write_text((ROOT / "experiments" / "quickstart.yaml").read_text())
    (sweep,) = yaml_blocks("sweeps.md", "name: example")
    assert command("validate", write(tmp_path, sweep)) == 0
    (search,) = yaml_blocks("searching.md", "name: example")
    assert command("validate", write(tmp_path, search)) == 0


def test_the_parts_of_the_documentation_on_sweeps_fit_into_an_experiment(tmp_path):
    (student,), (teacher,) = yaml_blocks("sweeps.md", "student:"), yaml_blocks("sweeps.md", "teacher:")
    images = {"dataset": {"name": "cifar10"}, "baseline": None}
    part = YAML(typ="safe").load(student)["student"]
    planned = make_plan(
        experiment_file.read(write(tmp_path, tiny(**images, student={**tiny()["student"], **part}))).source()
    )
    assert abs(planned.costs["student"].parameters - 1_000_000) < 3072
    part = YAML(typ="safe").load(teacher)["teacher"]
    assert (part["members"][0]["copies"], part["select"]["members"]) == (129, 16)
    part["members"][0]["copies"], part["select"]["members"] = 3, 2  # each is another net, which takes its time
    planned = plan_of(tmp_path, tiny(**images, teacher=part))
    assert len({str(member.teacher.configuration()) for member in planned.members}) == 3


def readme_commands():
    text = (ROOT / "README.md").read_text()
    return [shlex.split(line)[1:] for line in re.findall(r"^    \S*(mimic-keras run experiments.*)$", text, re.M)]


@pytest.mark.long
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
