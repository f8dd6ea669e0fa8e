"""Realign the corpus with a finished run's teacher: python -m mimic_keras_timit.align RUN --out FILE [--until SHARE]

The phones of every utterance stay; the frames of their states come from a Viterbi alignment with the teacher's scaled
likelihoods, as the paper's targets came from an HMM (Ba & Caruana 2014, section 5.1). With --until the run is repeated
on the new targets and aligned again, until at most this share of the frames changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from mimic_keras.contracts import InputError
from mimic_keras_timit import SyntheticTimit, Timit, features, targets
from mimic_keras_timit.corpus import SPLITS

# The teacher labels train's frames as the transfer set.
_LOGITS_OF = {"train": "transfer", "validation": "validation", "test": "test"}
MOST_ROUNDS = 20  # of --until; what has not converged by then does not


@dataclass(frozen=True)
class Alignment:
    """`corpus`: its digest. `states`: {utterance: int [frames]}. `short`: the utterances with fewer frames than states,
    which keep thirds."""

    corpus: str
    states: dict[str, np.ndarray]
    short: list[str]

    @property
    def frames(self) -> int:
        return sum(map(len, self.states.values()))

    def write(self, file: Path) -> None:
        targets.write(file, self.corpus, self.states)

    def count_changed(self, before: Alignment) -> int:
        """The frames whose state is another."""
        return sum(int(np.sum(states != before.states[name])) for name, states in self.states.items())


def align(run: Path) -> Alignment:
    """The alignment by a run's teacher.

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
    return Alignment(dataset.corpus_digest, aligned, short)


def align_repeatedly(run: Path, out: Path, until: float) -> Alignment:
    """Align, repeat the run on the new targets, and so on; every round's targets and run are kept beside the first's.

    Raises:
        InputError: `run` is not a finished run with a teacher on this data set, or a repetition of it fails.
    """
    found = align(run)
    for number in range(1, MOST_ROUNDS + 1):
        file = out.with_name(f"{out.stem}.{number}{out.suffix}")
        found.write(file)
        again = align(_repeat(run, file, number))
        changed = again.count_changed(found)
        print(f"round {number}: {changed:,} of {found.frames:,} frames changed ({changed / found.frames:.2%})")
        found = again
        if changed <= until * found.frames:
            return found
    raise InputError(f"--until {until:g}: not reached in {MOST_ROUNDS} rounds; the last targets are in {file}")


def _repeat(run: Path, alignment: Path, number: int) -> Path:
    """The folder of a run of the same experiment on other targets."""
    home = Path(json.loads(_read_text(run / "artifacts.json"))["dataset"]["folder"]).parents[1]
    name = f"{run.name}_aligned_{number}"
    values = {"name": name, "dataset.alignment": f"{{file: {json.dumps(str(alignment))}}}", "export.publish": "false"}
    settings = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    places = ["--home", str(home), "--runs_dir", str(run.parent)]
    command = [sys.executable, "-P", "-m", "mimic_keras", "run", str(run / "experiment.yaml"), *settings, *places]
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"{run}: it cannot be repeated on {alignment}, for the reason above")
    return run.parent / name


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
    parser.add_argument(
        "--until", type=float, metavar="SHARE", help="repeat until at most this share of the frames changes, as 0.01"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():
            raise InputError(f"--out: no such folder: {options.out.parent}")
        if options.until is not None and not 0 <= options.until < 1:
            raise InputError(f"--until: expected a share from 0 to 1, as 0.01, got {options.until:g}")
        found = (
            align(options.run) if options.until is None else align_repeatedly(options.run, options.out, options.until)
        )
    except (InputError, json.JSONDecodeError) as error:
        damaged = "" if isinstance(error, InputError) else f"{options.run / 'artifacts.json'} is damaged: "
        print(f"error: {damaged}{error}", file=sys.stderr)
        return 2
    found.write(options.out)
    print(f"{options.out}: {len(found.states):,} utterances, {found.frames:,} frames aligned")
    if found.short:
        print(f"with fewer frames than states, still cut into thirds: {', '.join(found.short)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
