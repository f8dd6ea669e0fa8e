"""Which virtual copies every net learns from and which it labels; with a `transfer` section they are different ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mimic_keras.contracts import DatasetInfo
from mimic_keras.experiment.file import merge
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.experiment.schema import ComponentSpec, Experiment, TransferSection
from mimic_keras.planning import components, preflight
from mimic_keras.planning.components import Component
from mimic_keras.storage.files import derive_seed, hash_json


class DataUse(NamedTuple):
    """A data set as one net uses it; `seed` draws its virtual copies."""

    dataset: Component
    seed: int


@dataclass(frozen=True)
class Uses:
    """The uses of an experiment's data.

    Without a `transfer` section every net sees the same copies, whatever its own seed. With one, the transfer set has
    the arguments that it gives and copies of its own seed, and every net that learns the labels draws its own.

    Args:
        experiment: the experiment.
        labelled: its `dataset`, which the labels are learnt from.
        transfer: what the teacher labels.
        transfer_info: of `transfer`.
    """

    experiment: Experiment
    labelled: Component
    transfer: DataUse
    transfer_info: DatasetInfo

    @classmethod
    def of(cls, experiment: Experiment, labelled: Component, info: DatasetInfo, problems: Problems) -> Uses:
        """Bind the transfer set; its problems are raised.

        Raises:
            InputError: the data set does not accept the changes.
        """
        seed = experiment.teacher.seed if experiment.teacher else experiment.student.seed
        if experiment.transfer is None:
            return cls(experiment, labelled, DataUse(labelled, seed), info)
        dataset = _change(experiment.dataset, experiment.transfer, problems)
        own_info = dataset and preflight.read_dataset_info(dataset, Place("transfer"), problems)
        problems.check()
        assert dataset
        assert own_info
        return cls(experiment, labelled, DataUse(dataset, derive_seed(hash_json(["transfer", seed]))), own_info)

    def learnt_from(self, seed: int, dataset: Component | None = None) -> DataUse:
        """What a net of this seed learns the labels from; `dataset` is its own preparation, if it has one."""
        seed = self.transfer.seed if self.experiment.transfer is None else seed
        return DataUse(dataset or self.labelled, seed)

    def labelled_with(self, spec: ComponentSpec | None, dataset: Component | None, problems: Problems) -> DataUse:
        """What a member labels; `dataset` is its own preparation, if it has one, and `spec` its description."""
        if dataset is None or spec is None:
            return self.transfer
        if self.experiment.transfer is None:
            return DataUse(dataset, self.transfer.seed)
        changed = _change(spec, self.experiment.transfer, problems)
        if changed:
            preflight.read_dataset_info(changed, Place("transfer"), problems)
        return DataUse(changed or dataset, self.transfer.seed)


def _change(spec: ComponentSpec, changes: TransferSection, problems: Problems) -> Component | None:
    return components.bind("dataset", merge(spec.model_dump(), changes.model_dump()), Place("transfer"), problems)
