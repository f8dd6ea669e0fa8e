"""Stage 2: the members of the teacher, each trained and stored, or loaded, independently of the others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from mimic_keras.contracts import SPLITS, InputError, Member, MimicError, RunError, Split, Teacher, TeacherContext
from mimic_keras.planning.plan import MemberPlan
from mimic_keras.planning.plugins import PluginError
from mimic_keras.stages.data import Data, check_same_examples
from mimic_keras.stages.workspace import STATES, Workspace
from mimic_keras.storage.files import write_json
from mimic_keras.storage.store import REUSED, Artifact, Store, Wanted
from mimic_keras.training import models
from mimic_keras.training.batches import Examples
from mimic_keras.training.mixing import MixedSplit
from mimic_keras.training.models import Cost, FinishedNet, make_predictor
from mimic_keras.training.objective import Objective
from mimic_keras.training.stability import write_stability
from mimic_keras.training.steps import TrainingDiverged
from mimic_keras.training.trainer import Train, Trained

Predictor = Callable[[str, Split, np.ndarray], np.ndarray]
DIVERGENCE = "diverged.json"  # the only file of a member that diverged: its error, so that it is not trained again


class MemberDiverged(RunError):
    """The loss of a member became infinite or NaN, in this run (`is_new`) or in an earlier one."""

    def __init__(self, message: str, is_new: bool):
        super().__init__(message)
        self.is_new = is_new


@dataclass(frozen=True)
class TeacherMember(FinishedNet):
    """A finished member. `load` returns its call; it is not needed where the logits are cached. Where they were stored
    by somebody else, it is None, and `stored` gives them: (name of a split, virtual ids int64 [N]) to [N, num_classes].

    `expects` is the range of inputs that a loaded net's own scaling suggests, as in `contracts.Member`.
    `source` is what people know it by: its architecture or its file.
    `data` is what it labels. `check` raises RunError if the code, the data or the loaded model is no longer what `key`
    says.
    """

    seed: int
    weight: float
    data: Data
    load: Callable[[], Callable[[Any], Any]] | None
    check: Callable[[], None] = lambda: None
    expects: tuple[float, float] | None = None
    stored: Callable[[str, np.ndarray], np.ndarray] | None = None
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})" if self.source else self.name

    def predictor(self) -> Predictor:
        """A function of (name of a split, its examples, virtual ids int64 [N]) to float32 logits [N, num_classes]."""
        if self.load:
            predict = make_predictor(self.load())
            return lambda _, split, ids: predict(split, ids)
        return self._look_up

    def _look_up(self, name: str, split: Split, ids: np.ndarray) -> np.ndarray:
        if isinstance(split, MixedSplit):
            message = "stored predictions cannot label mixtures; remove student.mixup, or the member"
            raise InputError(f"{self.name}: {message}")
        if name not in SPLITS:
            raise InputError(f"{self.name}: stored predictions are of the data set's own examples alone")
        assert self.stored
        return self.stored(name, ids)


def make_members(
    members: Sequence[MemberPlan],
    data: Data,
    train: Train,
    store: Store,
    workspace: Workspace,
    drops_diverged: bool = False,
) -> list[TeacherMember]:
    """Load or train every member; with `drops_diverged`, without those that diverge.

    What is to be loaded comes first: what does not fit the data is known before anything is trained.

    Raises:
        RunError: a member diverged and is not to be left out, or every member did.
    """
    prepared = [_prepare(plan, data, workspace) for plan in members]  # all, before anything is trained
    pairs = list(zip(members, prepared, strict=True))
    for plan, (learnt, _) in pairs:
        if plan.training:
            learnt.check_monitor(plan.training, plan.name)
    made = {plan.name: _load_member(plan, *uses, store) for plan, uses in pairs if not plan.is_trained}
    diverged: list[MemberDiverged] = []
    trained = [(plan, *uses) for plan, uses in pairs if plan.is_trained]
    wanted = [_want_member(plan, learnt, labelled, train) for plan, learnt, labelled in trained]
    for (plan, _, labelled), each, artifact in zip(trained, wanted, store.get_or_make_all(wanted), strict=True):
        try:
            made[plan.name] = _read_member(plan, labelled, artifact, each.check)
        except MemberDiverged as error:
            if not drops_diverged:
                raise RunError(f"{error}; teacher.on_divergence: drop leaves such members out") from error
            logging.warning("left out: %s", error, extra={} if error.is_new else REUSED)
            diverged.append(error)
    if diverged and not made:
        raise RunError(f"teacher: every member diverged; the first, {diverged[0]}")
    return [made[plan.name] for plan in members if plan.name in made]


def _prepare(plan: MemberPlan, data: Data, workspace: Workspace) -> tuple[Data, Data]:
    """What the member learns from, and what it labels: the examples that the student learns from."""
    labelled = workspace.prepare(*plan.labels)
    if labelled is not data:
        check_same_examples(data, labelled, f"the dataset of {plan.name}")
    return workspace.prepare(*plan.learns_from), labelled


def _describe(plan: MemberPlan, learnt: Data) -> dict[str, Any]:
    """What goes into the key of every member."""
    return {"teacher": plan.teacher.key_inputs(), "data": learnt.identity}


def _want_member(plan: MemberPlan, learnt: Data, data: Data, train: Train) -> Wanted:
    teacher = plan.teacher()
    assert plan.training

    def check() -> None:
        learnt.check_unchanged()
        data.check_unchanged()
        plan.teacher.check_unchanged()

    inputs = {**_describe(plan, learnt), "training": plan.training.key_inputs(), "seed": plan.seed}
    return Wanted(
        "teachers", inputs, plan.name, lambda folder: _train_member(plan, learnt, teacher, train, folder), check
    )


def _read_member(plan: MemberPlan, data: Data, artifact: Artifact, check: Callable[[], None]) -> TeacherMember:
    if (artifact.folder / DIVERGENCE).exists():
        error = artifact.read_json(DIVERGENCE)["error"]
        remembered = f"recorded in {artifact.folder}; remove it to train the net again"
        raise MemberDiverged(f"{plan.name}: {error} ({remembered})", artifact.made)
    cost, history = Cost(**artifact.read_json("cost.json")), artifact.read_json("history.json")

    def load() -> Callable[[Any], Any]:
        return models.inference_call(models.load(artifact.folder))

    return TeacherMember(
        name=plan.name,
        key=artifact.key,
        cost=cost,
        folder=artifact.folder,
        history=history,
        source=plan.source,
        seed=plan.seed,
        weight=plan.weight,
        data=data,
        load=load,
        check=check,
    )


def _train_member(plan: MemberPlan, data: Data, teacher: Teacher, train: Train, folder: Path) -> None:
    """Train a member and save it into `folder`; of one that diverges, the error alone."""
    trained: list[Trained] = []
    assert plan.training
    (folder / DIVERGENCE).unlink(missing_ok=True)  # of a process that died before it was recorded
    settings = (Objective(), plan.training, plan.seed, plan.name)

    def fit(build: Callable[[], keras.Model], ids: np.ndarray | None = None) -> keras.Model:
        examples, validation = Examples(data.split("train"), ids=ids), Examples(data.split("validation"))
        state = folder / f"{STATES}_{len(trained)}.npz"
        try:
            trained.append(train(build, examples, validation, *settings, judge=data.validation_metrics, state=state))
        except (MimicError, OSError):
            raise
        except Exception as error:  # not the plugin's fault, although it called us
            raise RunError(f"training {plan.name}: {type(error).__name__}: {error}") from error
        return trained[-1].model

    try:
        member: Member = plan.teacher.guard(teacher.member, TeacherContext(data.dataset, plan.seed, folder, fit))
    except TrainingDiverged as error:
        _replace_by_error(folder, error)
        return
    if member.model is None or not trained:
        raise PluginError(f"{plan.teacher.plugin} trained no model and has no source_digest")
    models.save(folder, member.model, trained[-1].history)
    write_stability(folder, trained[-1].stability)
    models.load(folder)  # a file that cannot be read back is no artefact
    for file in folder.glob(f"{STATES}_*"):
        file.unlink()


def _replace_by_error(folder: Path, error: TrainingDiverged) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_json(folder / DIVERGENCE, {"error": str(error)})


def _load_member(plan: MemberPlan, learnt: Data, data: Data, store: Store) -> TeacherMember:
    teacher = plan.teacher()
    inputs = {**_describe(plan, learnt), "source": plan.teacher.guard(teacher.source_digest)}
    with tempfile.TemporaryDirectory() as folder:
        context = TeacherContext(data.dataset, plan.seed, Path(folder), _refuse_training)
        member: Member = plan.teacher.guard(teacher.member, context)

    def check() -> None:
        data.check_unchanged()
        plan.teacher.check_unchanged()
        if plan.teacher.guard(teacher.source_digest) != inputs["source"]:
            raise RunError(
                f"{plan.name}: its model was changed after it was loaded; what needs it is not kept. Run again"
            )

    call, shape = member.call, data.dataset.info.input_shape
    cost = Cost(member.parameters, models.count_multiply_adds(call, shape) if call else None)
    return TeacherMember(
        name=plan.name,
        key=store.key(inputs),
        cost=cost,
        folder=None,
        history={},
        source=plan.source,
        seed=plan.seed,
        weight=plan.weight,
        data=data,
        load=(lambda: call) if call else None,
        check=check,
        expects=member.expects,
        stored=member.predict,
    )


def _refuse_training(*_: Any, **__: Any) -> keras.Model:
    raise PluginError("a teacher with a source_digest loads its model; it cannot train one")
