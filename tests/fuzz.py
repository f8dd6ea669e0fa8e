"""Hostile input for everything that reads files of strangers: `make fuzz` mutates for as long as it is told to.

A target takes the bytes of a file. It may return, or refuse them with the reader's own error; anything else, and any
write outside of its folder, is a bug. `tests/test_fuzz.py` runs a short corpus of every target.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import inspect
import io
import os
import random
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mimic_keras_cifar import records
from mimic_keras_teachers import Predictions
from mimic_keras_timit import audio, corpus
from mimic_keras_timit.phones import PHONES

from mimic_keras.contracts import DatasetInfo, InputError
from mimic_keras.experiment import file as experiment_file
from mimic_keras.experiment import yaml_text

ROOT = Path(__file__).parent.parent
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
LAYOUT = records.Layout(
    **{**vars(records.CIFAR10), "training_files": ("data_batch_1.bin",), "training_images": 2, "test_images": 1}
)

# Whose branches guide the mutations; those of every module that TensorFlow imports would take minutes to instrument.
READERS = ("mimic_keras", "ruamel.yaml", "numpy.lib", "tarfile", "gzip", "pydantic")

WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


class Escaped(BaseException):
    """Something was written outside of the folder of the target."""


def yaml(data: bytes) -> None:
    """What is read is also written and read again as it was, as `best.yaml` and `experiment.yaml` are."""
    file = FOLDER / "experiment.yaml"
    file.write_bytes(data)
    with contextlib.suppress(InputError):
        document = experiment_file.read(file)
        document.problems.check()
        text = yaml_text.dump(document.content)
        if len(text) < 4 * len(data) + 100:  # aliases make more, which only takes longer
            file.write_bytes(text.encode())
            assert repr(experiment_file.read(file).content) == repr(document.content)


def setting(data: bytes) -> None:
    """The value of --set, on a whole experiment."""
    with contextlib.suppress(InputError):
        experiment_file.read(ROOT / "experiments" / "quickstart.yaml", [data.decode("utf-8", "replace")])


def cifar(data: bytes) -> None:
    """The files of a folder, one behind the other."""
    place = FOLDER / LAYOUT.folder
    place.mkdir(exist_ok=True)
    share = len(data) * 2 // 3
    (place / "data_batch_1.bin").write_bytes(data[:share])
    (place / "test_batch.bin").write_bytes(data[share:])
    _read_images(FOLDER)


def archive(data: bytes) -> None:
    """The tar file inside of an archive, whose compression no mutation would survive."""
    compressed(gzip.compress(data, 1))


def compressed(data: bytes) -> None:
    file = FOLDER / "archive.tar.gz"
    file.write_bytes(data)
    _read_images(file)


def _read_images(root: Path) -> None:
    with contextlib.suppress(InputError):
        images, labels = records.read(LAYOUT, root)
        assert images.shape == (3, 32, 32, 3)
        assert labels.max() < 10


def unlabelled(data: bytes) -> None:
    file = FOLDER / "images.npy"
    file.write_bytes(data)
    with contextlib.suppress(InputError):
        assert records.read_unlabelled(LAYOUT, file).shape[1:] == (32, 32, 3)


def predictions(data: bytes) -> None:
    file = FOLDER / "predictions.npy"
    file.write_bytes(data)
    with contextlib.suppress(InputError):
        Predictions(file, file, file).check(DatasetInfo("fuzzed", "1", (2,), 3, ("a", "b", "c")))


def sound(data: bytes) -> None:
    try:
        samples = audio.decode(data)
    except ValueError:
        return
    assert samples.dtype == np.int16
    assert 0 < 2 * len(samples) <= len(data)


def transcript(data: bytes) -> None:
    try:
        found = corpus.parse_transcript(data.decode("ascii", "replace"), 5000)
    except ValueError:
        return
    assert (found.starts[1:] >= found.ends[:-1]).all()
    assert found.ends[-1] <= 5160


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, size in (("data_batch_1.bin", 2 * 3073), ("test_batch.bin", 3073)):
            member = tarfile.TarInfo(f"{LAYOUT.folder}/{name}")
            member.size = size
            packed.addfile(member, io.BytesIO(bytes([size % 7]) * size))
        for name, kind, target in (
            ("../../escaped", tarfile.SYMTYPE, "/etc/passwd"),
            ("/escaped", tarfile.LNKTYPE, "x"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            packed.addfile(member)
    return content.getvalue()


def _npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=version)
    return content.getvalue()


def _npy_headers() -> Iterator[bytes]:
    """Headers that promise what is not there: far too much, less than nothing, objects, another order."""
    fields = ("'descr': '|u1'", "'fortran_order': False", "'shape': (2, 32, 32, 3)")
    for place, other in (
        (2, "'shape': (99999999999, 32, 32, 3)"),
        (2, "'shape': (-1, 32, 32, 3)"),
        (2, "'shape': (18446744073709551616, 32, 32, 3)"),
        (0, "'descr': '|O'"),
        (0, "'descr': [('a', '|u1', (2,))]"),
        (1, "'fortran_order': True"),
    ):
        header = "{" + ", ".join(other if place == each else field for each, field in enumerate(fields)) + "}\n"
        yield b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(100)


_LOGITS = np.random.default_rng(0).normal(size=(4, 3))
_IMAGES = np.zeros([2, 32, 32, 3], np.uint8)
_SPHERE = audio.sphere_file(np.arange(-300, 300, dtype=np.int16))
_RIFF = (
    b"RIFF"
    + struct.pack("<I4s4sIHHIIHH4sI", 40, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", 4)
    + b"abcd"
)
_HOSTILE_YAML = (
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    b"&a [*a]\n",
    b"!!python/object/apply:os.system ['true']\n",
    b"<<: {name: x}\n? [1, 2]\n: 3\n",
    b"a0: &a0 {x: 1}\n" + b"".join(b"a%d: &a%d {<<: [*a%d, *a%d]}\n" % (n, n, n - 1, n - 1) for n in range(1, 29)),
    b"a: &a {x: 1}\nb: &b\n  ? <<\n  : *a\nc: {!!merge x: *b, '<<': 1}\n",
    b"name: ../../escaped\ndataset: ${HOME}\n",
)
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "yaml": (yaml, ((ROOT / "experiments" / "quickstart.yaml").read_bytes(), *_HOSTILE_YAML)),
    "setting": (
        setting,
        (
            b"student.training.epochs=5",
            b"name=../../x",
            b"teacher.members.0.copies=[1, {a: *b}]",
            b"=",
            b"a={<<: [{b: 1}]}",
        ),
    ),
    "cifar": (cifar, (bytes(3 * 3073), bytes([9] * 3073), b"")),
    "archive": (archive, (_tar(), _tar()[:1024])),
    "compressed": (compressed, (gzip.compress(_tar()), gzip.compress(_tar())[:40])),
    "unlabelled": (
        unlabelled,
        (_npy(_IMAGES), _npy(_IMAGES)[:60], _npy(_IMAGES, (2, 0)), _npy(np.asfortranarray(_IMAGES)), *_npy_headers()),
    ),
    "predictions": (
        predictions,
        (_npy(_LOGITS), _npy(_LOGITS)[:-1], _npy(_LOGITS.astype(">f2")), _npy(np.array(1.0)), *_npy_headers()),
    ),
    "sound": (sound, (_SPHERE, _RIFF, _SPHERE[:100])),
    "transcript": (transcript, (b"0 100 h#\n100 2000 sh\n2000 5000 h#\n", " ".join(PHONES).encode())),
}


POISONS = (
    *(b"\xff" * 8, b"\0" * 600, b"-1", b"9" * 5000, b"1e999", b"nan", b"\x80\0\0\0\0\0\0\xff", b"\xed\xa0\x80"),
    *(b"*a", b"&a ", b"<<: *a", b"<<: [*a, *a]", b"!!", b"{[", b"\n", b"../", b"/etc/passwd", b"${HOME}"),
)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes of `data` changed, or parts of it removed, repeated or exchanged for what parsers stumble over."""
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(data))
        end = min(len(data), start + int(2 ** draw.uniform(0, 10)))
        part = data[start:end]
        part = draw.choice(
            [
                b"",
                part * draw.randint(2, 5),
                part[::-1],
                bytes([draw.randrange(256)]),
                bytes(byte ^ (1 << draw.randrange(8)) for byte in part),
                draw.choice(POISONS),
            ]
        )
        data = data[:start] + part + data[end:]
    return data


def watch() -> None:
    """From now on, whatever is written outside of the target's folder raises. It cannot be switched off."""

    def check(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            is_written = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        else:
            is_written = event in WRITES
            path = arguments[1 if event in ("os.rename", "os.link", "os.symlink") else 0] if is_written else None
        if is_written and isinstance(path, str | bytes | Path):
            place = Path(os.fsdecode(path)).resolve()
            if FOLDER not in (place, *place.parents) and place != Path(os.devnull):
                raise Escaped(f"{event} {place}")

    sys.addaudithook(check)


def corpus_of(name: str, count: int) -> Iterator[bytes]:
    """The seeds of a target, and so many mutations of them."""
    seeds, draw = TARGETS[name][1], random.Random(name)
    yield from seeds
    for _ in range(count):
        yield mutated(draw.choice(seeds), draw)


def main() -> None:
    """Coverage-guided, until `--seconds` are over or something breaks; what broke is written to crash-*."""
    import atheris

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    function, seeds = TARGETS[options.target]
    folder = FOLDER / "corpus"
    folder.mkdir()
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)
    for each in gc.get_objects():
        if inspect.isfunction(each) and each.__module__ and each.__module__.startswith(READERS):
            atheris.instrument_func(each)
    settings = [f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *settings, str(folder)], function)
    watch()
    atheris.Fuzz()


if __name__ == "__main__":
    main()
