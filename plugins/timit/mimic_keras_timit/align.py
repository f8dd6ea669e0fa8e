"""Realign the corpus with a finished run's teacher: python -m mimic_keras_timit.align RUN --out FILE

Every utterance's phones are kept; which frames belong to which of their states is found anew by Viterbi with the
teacher's scaled likelihoods, as the HMM of Ba & Caruana 2014, section 3.1, did for the paper's targets.
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
    """Digest of the corpus, {utterance: states}, and the utterances with fewer frames than states, which keep thirds.

    Raises:
        InputError: `run` is no finished run with a teacher on this data set.
    """
    folders = json.loads(_text(run / "artifacts.json"))
    dataset = _dataset(run)
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
            path = targets.forced(utterance.transcript, rows)
            if path is None:
                path = targets.uniform(utterance.transcript, features.num_frames(utterance.samples))
                short.append(utterance.name)
            aligned[utterance.name] = path
    return dataset.corpus_digest, aligned, short


def _text(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"no such file: {file}; RUN is the folder of a finished run, runs/NAME")
    return file.read_text(encoding="utf-8")


def _dataset(run: Path) -> Timit:
    section = YAML(typ="safe", pure=True).load(_text(run / "experiment.yaml"))["dataset"]
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
    """The teacher's logits, float32 [frames, 183]: the weighted mean of its members'.

    Raises:
        InputError: they are not there, or not of so many frames.
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
    """The command; its exit code."""
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
        print(f"with fewer frames than states, and so with their thirds as before: {', '.join(short)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
