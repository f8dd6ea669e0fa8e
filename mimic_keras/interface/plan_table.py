"""A plan as text: what `mimic-keras validate` prints."""

from __future__ import annotations

from typing import Any

from mimic_keras.experiment.optimizers import OfLimit
from mimic_keras.planning.plan import Plan
from mimic_keras.reporting.tables import format_bytes, format_count


def describe_stages(plan: Plan) -> list[str]:
    """One line per stage: what the run will do."""
    counts = {**plan.info.num_examples, "transfer": plan.transfer_info.num_examples.get("transfer")}
    sizes = (
        ", ".join(f"{count:,} {split}" for split, count in counts.items() if count is not None)
        or "sizes unknown before it is prepared"
    )
    trained = sum(member.is_trained for member in plan.members)
    shape = f"inputs {list(plan.info.input_shape)}, {plan.info.num_classes} classes"
    lines = [f"data        {plan.dataset.plugin.name} {plan.info.version}: {shape}; {sizes}"]
    if plan.members and plan.student.loss:
        lines += [
            f"teachers    {trained} trained, {len(plan.members) - trained} loaded; each cached separately",
            f"logits      {_describe_labelling(plan)}; each cached separately",
            f"student     mimics with {plan.student.loss.plugin.name}",
        ]
    else:
        with_loss = f" with {plan.student.loss.plugin.name}" if plan.student.loss else ""
        lines.append(f"student     learns the labels{with_loss}: there is no teacher")
    if plan.baseline:
        lines.append("baseline    learns the labels")
    export = "a new version unless the newest is this student" if plan.experiment.export.publish else "not published"
    return [
        *lines,
        "evaluation  on validation and test",
        f"report      runs/{plan.experiment.name}/report.html",
        f"export      saved_models/{plan.experiment.name}, {export}",
    ]


def note_missing(plan: Plan) -> list[str]:
    """One line for each of the data sets' file locations where there is nothing: a run would end there."""
    uses = [
        plan.labelled,
        plan.transfer,
        *(use for member in plan.members for use in (member.learns_from, member.labels)),
    ]
    missing = dict.fromkeys(
        (use.dataset.plugin.name, path)
        for use in uses
        for path in use.dataset.paths()
        if not path.expanduser().exists()
    )
    return [f"note        data set {name}: {path} does not exist; a run needs it" for name, path in missing]


def _describe_labelling(plan: Plan) -> str:
    nets = f"of {len(plan.members)} member{'s' * (len(plan.members) != 1)}"
    if plan.select:
        return f"{nets} on validation, and of the {plan.select.members} chosen there on transfer and test"
    return f"{nets} on transfer, validation and test"


def estimate_resources(plan: Plan) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table: every net, what its training needs, and what is kept on disk."""
    examples = {**plan.info.num_examples, "transfer": plan.transfer_examples}
    splits = ("validation",) if plan.select else ("transfer", "validation", "test")
    logits = sum(examples.get(split, 0) for split in splits) * plan.info.num_classes * 4
    rows = []
    settings = [(member.name, "teachers", member.training) for member in plan.members]
    settings += [(net.name, "student", net.training) for net in plan.nets]
    for name, stage, training in settings:
        cost = plan.costs.get(name)
        size = 4 * ((cost and cost.parameters) or 0)
        row: dict[str, Any] = {"net": name, "stage": stage}
        if cost and training:
            copies = 2 + training.optimizer.slots + (training.restore == "best")  # weights and gradients are two
            copies += training.exponential_moving_average is not None
            row |= {
                "parameters": format_count(cost.parameters),
                "multiply-adds": format_count(cost.multiply_adds),
                "epochs": training.epochs,
                "training memory": format_bytes(size * copies),
            }
            if isinstance(training.optimizer.learning_rate, OfLimit):
                row["learning rate"] = f"{training.optimizer.learning_rate.of_limit:g} of the limit"
        row["kept on disk"] = format_bytes(size + (logits if stage == "teachers" else 0))
        rows.append(row)
    return list(dict.fromkeys(key for row in rows for key in row)), rows
