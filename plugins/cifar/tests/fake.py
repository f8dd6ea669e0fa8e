"""A small CIFAR: random images in the official binary layout, as a folder or as an archive."""

import dataclasses
import gzip
import io
import tarfile

import numpy as np
from mimic_keras_cifar.records import Layout

TRAINING, TEST = 100, 20


def small(layout):
    """The same files with 100 training and 20 test images."""
    return dataclasses.replace(layout, training_images=TRAINING, test_images=TEST)


@dataclasses.dataclass(frozen=True)
class Fake:
    """The official files' content: uint8 images [120, 32, 32, 3] and {kind: labels [120]}, training images first."""

    layout: Layout
    images: np.ndarray
    labels: dict[str, np.ndarray]

    @property
    def learnt(self):
        """The labels that nets learn."""
        return self.labels["label" if "label" in self.labels else "fine label"]

    @property
    def record(self):
        """Bytes of a record."""
        return len(self.labels) + 3072

    def files(self):
        """{name: content}: records of label bytes and the red, green and blue plane."""
        records = [
            bytes(labels[index] for labels in self.labels.values())
            + b"".join(image[:, :, colour].tobytes() for colour in range(3))
            for index, image in enumerate(self.images)
        ]
        share = TRAINING // len(self.layout.training_files)
        names = [name for name in self.layout.training_files for _ in range(share)] + [self.layout.test_file] * TEST
        found = dict.fromkeys(names, b"")
        for name, record in zip(names, records, strict=True):
            found[name] += record
        return found

    def write(self, folder, **changes):
        """Write the official folder below `folder`, with other contents of some files or without them; return it."""
        return write(folder / self.layout.folder, {**self.files(), **changes})

    def pack(self, file, **changes):
        """Write the official archive, with other contents of some files or without them; return it."""
        return pack(file, {f"{self.layout.folder}/{name}": data for name, data in {**self.files(), **changes}.items()})


def make(layout, seed=0):
    """Distinct images; the same ones for the same seed."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, [TRAINING + TEST, 32, 32, 3], np.uint8)
    labels = {kind: generator.integers(0, classes, len(images), np.uint8) for kind, classes in layout.labels.items()}
    return Fake(small(layout), images, labels)


def take_the_place_of(kind, monkeypatch):
    """Have the data set `kind` read small files; return their content."""
    made = make(kind.layout)
    monkeypatch.setattr(kind, "layout", made.layout)
    return made


def write(folder, contents):
    """Write {name: bytes, or None for no file} into `folder`, and return it."""
    folder.mkdir(parents=True)
    for name, data in contents.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def pack(file, contents):
    """Write a .tar.gz of {name: bytes, or a tarfile.TarInfo as it stands, or None for no member}, and return it."""
    with gzip.GzipFile(file, "wb", compresslevel=1, mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for folder in sorted({name.partition("/")[0] for name in contents if name.find("/") > 0 and name[0] != "."}):
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            tar.addfile(member)  # as in the official archives, the folder comes first
        for name, data in contents.items():
            if isinstance(data, bytes):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            elif data is not None:
                header = data.tobuf(tar.format, tar.encoding, tar.errors)  # addfile would miss what it claims to hold
                tar.fileobj.write(header)
                tar.offset += len(header)
    return file


def every(split):
    """All ids of a split, copies included."""
    return np.arange(split.num_examples * split.repeats, dtype=np.int64)


def standardized(images):
    """uint8 [N, ...] to float64: minus each image's mean, by its deviation, which counts as at least n ** -0.5."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    deviation = np.maximum(np.std(flat, axis=1), flat.shape[1] ** -0.5)
    return ((flat - flat.mean(1)[:, None]) / deviation[:, None]).reshape(images.shape)
