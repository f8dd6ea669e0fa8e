"""What a sweep will do, before anything is trained: its cells, what they share, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mimic_keras.experiment.training import TrainingSection
from mimic_keras.planning.plan import MemberPlan, NetPlan, Plan
from mimic_keras.planning.uses import DataUse
from mimic_keras.storage.files import hash_json
from mimic_keras.sweeping.axes import Value
from mimic_keras.sweeping.cells import Sweep, drop_averaged, make_row
from mimic_keras.sweeping.running import PlannedCell

FLOATING_POINT_OPERATIONS = 6  # a multiply-add is two; backpropagation costs two more passes


def describe_sweep(sweep: Sweep, cells: Sequence[PlannedCell]) -> list[str]:
    """One line cell on cells, teachers, students and cost."""
    members = {_member_key(member): (cell.plan, member) for cell in cells for member in cell.plan.members}
    labelled = {
        hash_json([_member_key(member), cell.plan.mixup]): (cell.plan, member)
        for cell in cells
        for member in cell.plan.members
    }
    teachers = {
        hash_json([sorted(_member_key(member) for member in cell.plan.members), cell.plan.select])
        for cell in cells
        if cell.plan.members
    }
    searches = [cell for cell in cells if cell.search]
    students = sum(cell.trainings for cell in cells)
    baselines = {_net_key(cell.plan.baseline) for cell in cells if cell.plan.baseline}
    lines = [
        f"cells       {len(cells)}: {' x '.join(f'{len(values)} {axis}' for axis, values in sweep.axes.items())}"
        + (", less what is excluded" if sweep.exclude else ""),
        f"teachers    {len(teachers)} distinct, of {len(members)} members; {len(labelled)} sets of logits"
        + (", fewer where members are chosen on validation" if any(cell.plan.select for cell in cells) else ""),
        f"students    {students} trainings"
        + (f" in {len(searches)} searches" if searches else "")
        + (f", {len(baselines)} baselines" if baselines else ""),
    ]
    cost = sum(_training_cost(plan, member.name, member.training) for plan, member in members.values())
    labelling = sum(_labelling_cost(plan, member) for plan, member in labelled.values())
    cost += sum(cell.trainings * _training_cost(cell.plan, "student", cell.plan.student.training) for cell in cells)
    seen: dict[str, Plan] = {_net_key(cell.plan.baseline): cell.plan for cell in cells if cell.plan.baseline}
    cost += sum(_training_cost(plan, "baseline", plan.baseline.training) for plan in seen.values() if plan.baseline)
    bound = "about" if searches else "at most"  # a search's nets differ in size from the one in the middle
    lines.append(f"cost        {bound} {cost + labelling:.2g} floating-point operations")
    return lines


def tabulate_cells(sweep: Sweep, cells: Sequence[PlannedCell]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table with one row for all cells that differ only in what is averaged over."""
    rows: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Value]] = {}
    counted: dict[str, Any] = {"trainings": 0, "operations": 0.0}
    for cell in cells:
        values, published = drop_averaged(sweep, cell.cell), cell.cell.paper.get("parameters")
        cost = cell.plan.costs["student"]
        row = rows.setdefault(
            hash_json(values),
            {"parameters": cost.parameters, "paper's": published, "multiply-adds": cost.multiply_adds, **counted},
        )
        row["trainings"] += cell.trainings
        row["operations"] += cell.trainings * _training_cost(cell.plan, "student", cell.plan.student.training)
        shown[hash_json(values)] = values
    listed = []
    for key, row in rows.items():
        published = row["paper's"]
        row |= {"operations": f"{row['operations']:.2g}", "paper's": published and f"{published:,.0f}"}
        listed.append(make_row(shown[key], row))
    return [key for key in listed[0] if any(row.get(key) is not None for row in listed)], listed


def _data_key(use: DataUse) -> str:
    return hash_json([use.dataset.configuration(), use.seed])


def _member_key(member: MemberPlan) -> str:
    training = member.training.key_inputs() if member.training and member.is_trained else None
    data = [_data_key(use) for use in (member.learns_from, member.labels)]
    return hash_json([member.teacher.specification(), member.seed, training, data])


def _net_key(net: NetPlan) -> str:
    return hash_json(
        [net.architecture.configuration(), net.training.key_inputs(), net.seed, _data_key(net.learns_from)]
    )


def _training_cost(plan: Plan, name: str, training: TrainingSection | None) -> float:
    """Floating-point operations of all epochs; 0 for a net that is loaded or not counted."""
    is_mimic = name == "student" and bool(plan.members)
    split, info = ("transfer", plan.transfer_info) if is_mimic else ("train", plan.info)
    cost = plan.costs.get(name)
    if cost is None or cost.multiply_adds is None or training is None:
        return 0.0
    originals = info.num_examples.get(split, 0) / info.repeats
    return FLOATING_POINT_OPERATIONS * cost.multiply_adds * originals * training.epochs


def _labelling_cost(plan: Plan, member: MemberPlan) -> float:
    cost = plan.costs.get(member.name)
    share = min(1.0, plan.select.members / len(plan.members)) if plan.select else 1.0
    return 2 * share * ((cost and cost.multiply_adds) or 0) * plan.transfer_examples
