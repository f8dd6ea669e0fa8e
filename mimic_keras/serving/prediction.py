"""Files of examples as requests of the signature that takes them, and its answers as rows of a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mimic_keras.contracts import InputError
from mimic_keras.serving.runtimes import Arrays, Input, Runtime

AT_ONCE = 256  # examples in a request
FAR = 10  # times the width of a range: outliers of a table are within it


@dataclass(frozen=True)
class Examples:
    """Examples of one or more files. `names`: of each example, for the table.

    `arrays` has the files' names of the inputs; a file that has none, such as a .npy file, gives the one name "".
    """

    names: list[str]
    arrays: Arrays


def read(files: Sequence[Path]) -> Examples:
    """Read .npy, .npz and .csv files as numbers, all others as they are, one example each; of a folder, its files.

    A .csv file has a row for each example. If its first line is no row of numbers, it names the inputs.

    Raises:
        InputError: a file cannot be read, or the files do not go together.

    Example:
        >>> read([Path("cat.png"), Path("dog.png")]).names
        ['cat.png', 'dog.png']
    """
    files = [part for file in files for part in (_list_folder(file) if file.is_dir() else [file])]
    parts = [_read_file(file) for file in files]
    names = [name for file, part in zip(files, parts, strict=True) for name in _name_examples(file, part)]
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        kinds = [{name: (each.dtype.kind, each.shape[1:]) for name, each in one.items()} for one in (first, part)]
        if kinds[0] != kinds[1]:
            raise InputError(f"{file}: other names, types or sizes than {files[0]}; give them to commands of their own")
    return Examples(names, {name: np.concatenate([part[name] for part in parts]) for name in first})


def _list_folder(folder: Path) -> list[Path]:
    """The files of a folder in the order of their names, without hidden ones and folders."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: it has no files; folders inside of it are not searched")
    return files


def _read_file(file: Path) -> Arrays:
    try:
        if file.suffix == ".npy":
            return {"": np.load(file)}
        if file.suffix == ".npz":
            with np.load(file) as stored:
                return dict(stored)
        if file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as stream:
                return _parse_rows(list(csv.reader(stream)))
        content = np.empty(1, object)
        content[0] = file.read_bytes()
        return {"": content}
    except Exception as error:  # NumPy raises anything here, depending on what the file holds
        raise InputError(f"{file} cannot be read: {error}") from error


def _parse_rows(lines: list[list[str]]) -> Arrays:
    """Float32 [rows, columns] under the name ""; with a header, {column: float32 or texts, [rows]}."""
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError("it has no rows")
    if any(len(line) != len(lines[0]) for line in lines):
        raise ValueError("its rows have different numbers of columns")
    if _are_numbers(lines[0]):
        return {"": np.array(lines, np.float32)}
    if len(lines) == 1:
        raise ValueError("it has names of columns and no rows")
    columns = zip(*lines[1:], strict=True)
    return {name: _parse_column(cells) for name, cells in zip(lines[0], columns, strict=True)}


def _parse_column(cells: Sequence[str]) -> np.ndarray:
    """Float32 [rows], NaN where a cell is empty, or texts."""
    return np.array([cell or "nan" for cell in cells], np.float32) if _are_numbers(cells) else np.array(cells, object)


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether every cell that is not empty is a number, and one is."""
    try:
        return bool([float(cell) for cell in cells if cell])
    except ValueError:
        return False


def _name_examples(file: Path, arrays: Arrays) -> list[str]:
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or not counts or counts == {0}:
        raise InputError(f"{file}: expected arrays of one or more examples, of each the same number")
    (count,) = counts
    return [file.name] if count == 1 else [f"{file.name}[{place}]" for place in range(count)]


def choose(signatures: Mapping[str, Mapping[str, Input]], given: Examples) -> tuple[str, Arrays]:
    """The only signature that takes the examples, and the request for it.

    Args:
        signatures: {signature: {input: Input}}.
        given: the examples.

    Raises:
        InputError: none takes them, or several do; the message lists what each takes.
    """
    requests = {name: _fit(inputs, given.arrays) for name, inputs in signatures.items()}
    fitting = {name: request for name, request in requests.items() if request is not None}
    if not fitting:  # images that no signature takes as they are
        requests = {name: _decode_images(inputs, given) for name, inputs in signatures.items()}
        fitting = {name: request for name, request in requests.items() if request is not None}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    known = "".join(f"\n  {name}: {_describe_inputs(inputs)}" for name, inputs in signatures.items())
    if fitting:
        is_among = "serving_default" in fitting
        prepared = "; serving_default takes prepared inputs, the others raw ones" if is_among else ""
        raise InputError(f"{', '.join(fitting)} take these examples; choose with --signature{prepared}{known}")
    if skipped := _skip_columns(signatures, given):
        return skipped
    found = _describe_inputs({name: Input(array.dtype, array.shape) for name, array in given.arrays.items()})
    raise InputError(f"no signature takes {found.strip()}{_describe_absent(signatures, given)}; accepted{known}")


def warn_of_other_scales(signature: str, request: Arrays, own: Arrays, others: Sequence[str]) -> None:
    """Warn of numbers far outside of the range that the export's own examples have: they were prepared otherwise.

    Args:
        signature: the one that was chosen; for the message, as `others`, which may prepare their inputs.
        request: {input: array} for it.
        own: the export's examples for it.
    """
    for name, values in request.items():
        if values.dtype.kind != "f" or not np.isfinite(values).any():
            continue
        low, high = float(np.nanmin(own[name])), float(np.nanmax(own[name]))
        found = float(np.nanmin(values)), float(np.nanmax(values))
        if found[0] < low - FAR * (high - low) or found[1] > high + FAR * (high - low):
            hint = f"; raw ones are for {', '.join(others)}" if others else ""
            logging.warning(
                "%s takes prepared examples: %s is from %.4g to %.4g, and was from %.4g to %.4g on validation%s",
                *(signature, name, *found, low, high, hint),
            )


def _skip_columns(signatures: Mapping[str, Mapping[str, Input]], given: Examples) -> tuple[str, Arrays] | None:
    """The signature, and the request for it, that takes the most of the named arrays, if all it takes are among them:
    a table may have columns that are no inputs, as the one of the labels."""
    best: tuple[str, Arrays] | None = None
    left: set[str] = set()
    for name, inputs in signatures.items():
        named = _name_as_inputs(given.arrays, inputs)
        request = _fit(inputs, {key: named[key] for key in inputs if key in named})
        if request is not None and (best is None or len(request) > len(best[1])):
            best, left = (name, request), named.keys() - request.keys()
    if best:
        logging.info("%s: no inputs, skipped: %s", best[0], ", ".join(sorted(left)))
    return best


def _describe_absent(signatures: Mapping[str, Mapping[str, Input]], given: Examples) -> str:
    """The inputs that are missing to the signature that has the most of the given ones; "" if none has any."""
    named = {name: _name_as_inputs(given.arrays, inputs) for name, inputs in signatures.items()}
    shares = {name: len(inputs.keys() & named[name].keys()) for name, inputs in signatures.items()}
    nearest = max(shares, key=lambda name: shares[name])
    absent = [name for name in signatures[nearest] if name not in named[nearest]]
    return f" without {', '.join(absent)}" if shares[nearest] and absent else ""


def _describe_inputs(inputs: Mapping[str, Input]) -> str:
    return ", ".join(
        f"{name} {'text' if each.dtype == object else each.dtype}"
        f"[{', '.join('any' if size is None else str(size) for size in each.shape)}]"
        for name, each in inputs.items()
    )


def _fit(inputs: Mapping[str, Input], arrays: Arrays) -> Arrays | None:
    """The arrays with the inputs' names and types; None if they do not fit."""
    if set(arrays) == {""} and len(inputs) == 1:
        arrays = dict(zip(inputs, arrays.values(), strict=True))
    arrays = _name_as_inputs(arrays, inputs)
    if set(arrays) != set(inputs):
        return None
    fitted = {name: _cast(arrays[name], each) for name, each in inputs.items()}
    return None if any(each is None for each in fitted.values()) else fitted  # type: ignore[return-value]


def _name_as_inputs(arrays: Arrays, inputs: Mapping[str, Input]) -> Arrays:
    """The arrays by the inputs' names, which have "_" for everything but letters and digits, as columns have spaces."""
    named = {"_".join(re.findall("[A-Za-z0-9]+", name)): name for name in arrays}
    known = {named[name]: name for name in inputs if name not in arrays and name in named}
    return {known.get(name, name): array for name, array in arrays.items()}


def _cast(array: np.ndarray, wanted: Input) -> np.ndarray | None:
    """The array as an input; floats may be of another precision, nothing else is converted."""
    if len(array.shape) != len(wanted.shape):
        return None
    if any(size not in (None, found) for size, found in zip(wanted.shape[1:], array.shape[1:], strict=True)):
        return None
    if array.dtype == wanted.dtype or (wanted.dtype == object and array.dtype.kind in "SU"):
        return array
    return array.astype(wanted.dtype) if array.dtype.kind == wanted.dtype.kind == "f" else None


def _decode_images(inputs: Mapping[str, Input], given: Examples) -> Arrays | None:
    """Contents of files as uint8 images [B, height, width, channels]; None if the signature takes none.

    Raises:
        InputError: a file is no image that TensorFlow reads, or its size is not the signature's.
    """
    (name, wanted), *others = inputs.items()
    contents = given.arrays.get("")
    if others or wanted.dtype != np.uint8 or len(wanted.shape) != 4 or contents is None or contents.dtype != object:
        return None
    import tensorflow as tf

    images = []
    for file, content in zip(given.names, contents, strict=True):
        try:
            image = tf.io.decode_image(content, channels=wanted.shape[3], expand_animations=False).numpy()
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{file}: expected an image, a PNG, JPEG, GIF or BMP file") from error
        if None not in wanted.shape[1:] and image.shape != wanted.shape[1:]:
            raise InputError(f"{file}: an image of {list(image.shape)}; the signature takes {list(wanted.shape[1:])}")
        images.append(image)
    return {name: np.stack(images)}


def predict(runtime: Runtime, request: Arrays, names: Sequence[str], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each example, or for each of its rows: {"example", "row" where there are several, "class", "label",
    "probability" of that class, "probabilities" {label: of every class}}.

    Raises:
        RunError: the runtime refuses the request.
    """
    for start in range(0, len(names), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        outputs = runtime.run({name: value[part] for name, value in request.items()})
        for place, name in enumerate(names[part]):
            classes, probabilities = outputs["class"][place], outputs["probabilities"][place]
            if "row_counts" not in outputs:
                yield {"example": name, **_describe_class(classes, probabilities, labels)}
                continue
            for row in range(outputs["row_counts"][place]):
                yield {"example": name, "row": row, **_describe_class(classes[row], probabilities[row], labels)}


def _describe_class(number: Any, probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Class -1, of an example with NaN, has no label."""
    known = number >= 0
    return {
        "class": int(number),
        "label": labels[number] if known else "",
        "probability": float(probabilities[number]) if known else None,
        "probabilities": {
            label: float(value) if known else None for label, value in zip(labels, probabilities, strict=True)
        },
    }
