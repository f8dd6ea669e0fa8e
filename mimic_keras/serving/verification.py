"""Whether an export answers as its student does, and survives requests that it should refuse.

The export is loaded by TensorFlow Serving's loader in a process of its own, since a wrong graph can bring its process
down. `python -m mimic_keras.serving.verification EXPORT` is that process.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mimic_keras.contracts import RunError
from mimic_keras.serving import isolation
from mimic_keras.training.metrics import log_softmax

EXAMPLES = Path("assets.extra", "examples.npz")
# Largest difference from the student's logits, as a share of their spread, unless export.json has its own "tolerance".
TOLERANCE = 1e-5


class VerificationError(RunError):
    """An export is wrong; the message says at which request."""


def write_examples(folder: Path, examples: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]) -> None:
    """Store {signature: ({input: array}, the student's logits)} in an export, so that it can be verified anywhere."""
    arrays: dict[str, np.ndarray] = {}
    for signature, (inputs, logits) in examples.items():
        arrays |= {f"{signature}/inputs/{name}": _terminated(value) for name, value in inputs.items()}
        arrays[f"{signature}/logits"] = logits
    (folder / EXAMPLES).parent.mkdir(exist_ok=True)
    np.savez(folder / EXAMPLES, **arrays)  # type: ignore[arg-type]


def read_examples(folder: Path) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """The examples of an export, as given to `write_examples`.

    Raises:
        VerificationError: it has none, or they are damaged.
    """
    try:
        with np.load(folder / EXAMPLES) as stored:
            arrays = dict(stored)
    except Exception as error:  # NumPy raises anything here, depending on what the file holds
        raise VerificationError(f"{folder / EXAMPLES} cannot be read: {error}") from error
    found: dict[str, tuple[dict[str, np.ndarray], np.ndarray]] = {}
    for name, logits in arrays.items():
        if name.endswith("/logits"):
            prefix = name.removesuffix("logits") + "inputs/"
            inputs = {
                key.removeprefix(prefix): _unterminated(value)
                for key, value in arrays.items()
                if key.startswith(prefix)
            }
            found[name.removesuffix("/logits")] = inputs, logits
    return found


def _terminated(value: np.ndarray) -> np.ndarray:
    """Texts with a byte more at their end, because NumPy drops the zero bytes there; anything else as it is."""
    if value.dtype.kind not in "SUO":
        return value
    texts = [text.encode() if isinstance(text, str) else text for text in value.ravel().tolist()]
    return np.array([text + b"." for text in texts], np.bytes_).reshape(value.shape)


def _unterminated(value: np.ndarray) -> np.ndarray:
    """What `_terminated` was given; texts as bytes, in an array of objects."""
    if value.dtype.kind != "S":
        return value
    texts = np.empty(value.size, object)
    texts[:] = [text[:-1] for text in value.ravel().tolist()]
    return texts.reshape(value.shape)


def verify(folder: Path) -> dict[str, Any]:
    """Verify an export in a process of its own.

    Returns:
        {"signatures": {name: {"examples": how many, "largest_difference": as a share of the logits' spread, "refused"
        and "answered": how many malformed requests}}, "warmup_requests": how many were replayed}

    Raises:
        VerificationError: it cannot be loaded, its numbers are not the student's, or the process died.

    Example:
        >>> verify(Path("saved_models/quickstart/1"))["warmup_requests"]
        4
    """
    try:
        return isolation.call(__name__, folder)
    except isolation.ProcessError as error:
        raise VerificationError(f"{folder}: {error}") from error


def malformed_requests(inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(what is wrong, a request) for every way in which shape or values of a request can be wrong."""
    for name, value in inputs.items():
        yield f"{name} without the batch dimension", {**inputs, name: value[0, ...]}
        yield f"{name} with one dimension more", {**inputs, name: value[None]}
        yield f"{name} a single value", {**inputs, name: value.ravel()[0, ...]}
        for axis in range(1, value.ndim):
            yield f"{name} with another size of axis {axis}", {**inputs, name: np.repeat(value, 2, axis)}
            yield f"{name} with nothing on axis {axis}", {**inputs, name: np.take(value, [], axis)}
        if len(inputs) > 1:
            yield f"{name} of fewer examples", {**inputs, name: value[:-1]}
        if value.dtype.kind == "f":
            for number in (np.nan, np.inf):
                yield f"{name} all {number}", {**inputs, name: np.full_like(value, number)}
        elif value.dtype.kind == "O":
            for text in (b"", b"\xff\x00"):
                yield f"{name} all {text!r}", {**inputs, name: np.full_like(value, text)}
        else:
            limits = np.iinfo(value.dtype)
            yield f"{name} all {limits.min}", {**inputs, name: np.full_like(value, limits.min)}
            yield f"{name} all {limits.max}", {**inputs, name: np.full_like(value, limits.max)}
    yield "no examples", {name: value[:0] for name, value in inputs.items()}


def compare(outputs: Mapping[str, np.ndarray], logits: np.ndarray, labels: Sequence[str] | None) -> float:
    """The largest difference of an export's logits from the expected ones, as a share of their spread.

    Args:
        outputs: of a signature: `saved_model.make_outputs` says what they are.
        logits: the expected ones, float32 [B, num_classes], or [B, rows, num_classes] with `row_counts`.
        labels: the class names; None if the outputs have no label.

    Raises:
        VerificationError: a shape, the probabilities, a class or a label does not agree with the logits.
    """
    found = outputs["logits"]
    if found.shape != logits.shape:
        raise VerificationError(f"logits of shape {list(found.shape)}, expected {list(logits.shape)}")
    real = np.ones(found.shape[:-1], bool)
    if "row_counts" in outputs:
        real = np.arange(found.shape[1]) < outputs["row_counts"][:, None]
    if not np.allclose(outputs["probabilities"][real], np.exp(log_softmax(found[real])), atol=1e-5):
        raise VerificationError("the probabilities are not the softmax of the logits")
    if (outputs["class"][real] != found.argmax(-1)[real]).any():
        raise VerificationError("the class is not the largest logit's")
    if labels is not None:
        names = np.array(labels, object)[outputs["class"][real]]
        if [name.encode() for name in names] != list(outputs["label"][real]):
            raise VerificationError("the label is not the class's")
    return measure_difference(found, logits, real)


def measure_difference(found: np.ndarray, logits: np.ndarray, real: np.ndarray | None = None) -> float:
    """The largest difference from the expected logits, as a share of the spread of those that are `real` (bool)."""
    expected = logits if real is None else logits[real]
    spread = max(float(expected.std()), 1e-30) if expected.size else 1.0
    return float(np.abs(found - logits).max(initial=0.0) / spread)


def _verify(folder: Path, at: Callable[[str], None]) -> dict[str, Any]:
    from mimic_keras.serving import warmup
    from mimic_keras.serving.session_loader import ServedModel, ServingError

    at("loading")
    served = ServedModel(folder)
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    labels, tolerance = record["class_names"], record.get("tolerance", TOLERANCE)
    examples = read_examples(folder)
    if set(examples) != set(served.signatures):
        raise VerificationError(f"examples for {sorted(examples)}, signatures {sorted(served.signatures)}")
    results: dict[str, Any] = {}
    for signature, (inputs, logits) in examples.items():
        at(f"{signature}: its examples")
        difference = compare(served.run(signature, inputs), logits, labels)
        at(f"{signature}: one example")
        one = served.run(signature, {name: value[:1] for name, value in inputs.items()})
        rows = one["logits"].shape[1] if "row_counts" in one else None
        difference = max(difference, compare(one, logits[:1] if rows is None else logits[:1, :rows], labels))
        if not difference <= tolerance:
            raise VerificationError(
                f"{signature}: its logits differ from the student's by {difference:.2g} of their spread"
            )
        counts: Counter[str] = Counter()
        for what, request in malformed_requests(inputs):
            at(f"{signature}: {what}")
            try:
                served.run(signature, request)
                counts["answered"] += 1
                if "without the batch" in what:
                    raise VerificationError(f"{signature}: answered {what}")
            except ServingError:
                counts["refused"] += 1
        bad = {how: counts[how] for how in ("refused", "answered")}
        results[signature] = {"examples": len(logits), "largest_difference": difference, **bad}
    replayed = 0
    for replayed, warm in enumerate(warmup.read(folder), 1):
        at(f"warm-up request {replayed}, {warm.signature}")
        served.run(warm.signature, warm.inputs)
    return {"signatures": results, "warmup_requests": replayed}


if __name__ == "__main__":
    isolation.run(lambda at: _verify(Path(sys.argv[1]), at))
