"""Realign the corpus with a finished run's teacher: python -m mimic_keras_timit.align RUN --out FILE

The phones of every utterance stay; the frames of their states come from a Viterbi alignment with the teacher's scaled
likelihoods, as the paper's targets came from an HMM (Ba & Caruana 2014, section 5.1).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from mimic_keras.contracts import InputError
from mimic_keras_timit import SyntheticTimit, Timit, features, targets
from mimic_keras_timit.corpus import SPLITS

# The teacher labels train's frames as the transfer set.
_LOGITS_OF = {"train": "transfer", "validation": "validation", "test": "test"}


def align(run: Path) -> tuple[str, dict[str, np.ndarray], list[str]]:
    """The corpus digest, {utterance: states}, and the utterances with fewer frames than states, which keep thirds.

    Raises:
        InputError: `run` is not a finished run with a teacher on this data set.
    """
    folders = json.loads(_read_text(run / "artifacts.json"))
    dataset = _load_dataset(run)
    home = Path(folders["dataset"]["folder"])
    if not home.is_dir():
        raise InputError(f"{run}: the folder of its data set is gone, {home}; run the experiment again")
    dataset.prepare(home)
    members = {name: entry for name, entry in folders.items() if name.startswith("teacher/")}
    if not members:
        raise InputError(f"{run}: the experiment has no teacher, whose logits are needed")
    aligned, short = {}, []
    for split in SPLITS:
        frames = sum(features.num_frames(utterance.samples) for utterance in dataset.corpus[split])
        scores = dataset.scores(split, _mean_logits(members, _LOGITS_OF[split], frames))
        for utterance, rows in zip(dataset.corpus[split], scores, strict=True):
            path = targets.force_align(utterance.transcript, rows)
            if path is None:
                path = targets.cut_in_thirds(utterance.transcript, features.num_frames(utterance.samples))
                short.append(utterance.name)
            aligned[utterance.name] = path
    return dataset.corpus_digest, aligned, short


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"no such file: {file}; RUN is the folder of a finished run, runs/NAME")
    return file.read_text(encoding="utf-8")


def _load_dataset(run: Path) -> Timit:
    section = YAML(typ="safe", pure=True).load(_read_text(run / "experiment.yaml"))["dataset"]
    kinds: dict[str, type[Timit]] = {kind.name: kind for kind in (Timit, SyntheticTimit)}
    name = section.pop("name")
    if name not in kinds:
        raise InputError(f"{run}: its data set is '{name}', expected {' or '.join(kinds)}")
    if section.get("root"):
        section["root"] = Path(section["root"])
    if isinstance(section.get("alignment"), dict):
        section["alignment"] = {"file": Path(section["alignment"]["file"])}
    return kinds[name](**section)


def _mean_logits(members: Mapping[str, Mapping], split: str, frames: int) -> np.ndarray:
    """The teacher's logits, float32 [frames, 183]: the weighted mean over its members.

    Raises:
        InputError: they are missing, or their number of frames is wrong.
    """
    total = sum(entry["weight"] for entry in members.values())
    mean: np.ndarray | float = 0.0
    for entry in members.values():
        folder = Path(entry["logits"][split])
        shards = [np.load(file) for file in sorted(folder.glob("*.npy"))]
        if (found := sum(map(len, shards))) != frames:
            raise InputError(
                f"{folder} has logits of {found:,} frames, the corpus has {frames:,}; run the experiment again"
            )
        mean = mean + np.concatenate(shards) * np.float32(entry["weight"] / total)
    return np.asarray(mean)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mimic_keras_timit.align", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run with a teacher")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the alignment to write (.npz)")
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():
            raise InputError(f"--out: no such folder: {options.out.parent}")
        digest, aligned, short = align(options.run)
    except (InputError, json.JSONDecodeError) as error:
        damaged = "" if isinstance(error, InputError) else f"{options.run / 'artifacts.json'} is damaged: "
        print(f"error: {damaged}{error}", file=sys.stderr)
        return 2
    targets.write(options.out, digest, aligned)
    frames = sum(len(path) for path in aligned.values())
    print(f"{options.out}: {len(aligned):,} utterances, {frames:,} frames aligned")
    if short:
        print(f"with fewer frames than states, still cut into thirds: {', '.join(short)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
