"""One corpus in every layout that people have it in: the same names, samples, phones and boundaries from each."""

import shutil
import struct

import pytest
from mimic_keras_timit import corpus
from mimic_keras_timit.phones import PHONES
from mimic_keras_timit.speakers import CORE_TEST, DEVELOPMENT

from plugins.timit.tests import fake

LAYOUTS = {}


def layout(build):
    """Register `build(root) -> root`, which changes a copy of the corpus, TIMIT/, or says where to look for it."""
    LAYOUTS[build.__name__] = build
    return build


def sound(file):
    """A written file's samples, read without the reader."""
    content = file.read_bytes()[1024:]
    return struct.unpack(f"<{len(content) // 2}h", content)


def sounds(root):
    return sorted(root.rglob("*.WAV"))


def lowered(root):
    """All names below `root` in lower case."""
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))
    return root


# Where it is


@layout
def as_on_the_disc(root):
    return root


@layout
def the_folder_above(root):
    return root.parent


@layout
def two_folders_above(root):
    return shutil.move(root, root.parent / "ldc" / "LDC93S1" / "TIMIT").parent.parent


@layout
def a_link(root):
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


@layout
def lower_case(root):
    return lowered(root).rename(root.with_name("timit"))


@layout
def lower_case_folders(root):
    for file in (file for file in root.rglob("*") if file.is_file()):
        folder = root.parent / "timit" / str(file.parent.relative_to(root)).lower()
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    return root.parent / "timit"


@layout
def lower_case_files(root):
    for file in root.rglob("*.*"):
        file.rename(file.with_name(file.name.lower()))
    return root


@layout
def with_what_else_lies_there(root):
    for folder in {root, *(file.parent for file in sounds(root)), *(file.parent.parent for file in sounds(root))}:
        for name in ("._SX1.WAV", "._SX1.PHN", ".DS_Store", "Thumbs.db", "SX1.WRD", "SX1.PHN~", "SX1.WAV.txt"):
            (folder / name).write_bytes(b"\0")
    for folder in ("DOC", "CONVERT", "TRAIN/.ipynb_checkpoints", "TEST/DR1/STRANGER"):
        (root / folder).mkdir(parents=True)
    return root


# What the files hold


@layout
def big_endian(root):
    for file in sounds(root):
        file.write_bytes(fake.sphere(sound(file), big=True))
    return root


@layout
def the_discs_whole_header(root):
    for file in sounds(root):
        file.write_bytes(fake.sphere(sound(file), 2048))
    return root


@layout
def byte_orders_mixed(root):
    for file in sounds(root)[::2]:
        file.write_bytes(fake.sphere(sound(file), big=True))
    return root


@layout
def riff(root):
    for file in sounds(root):
        file.write_bytes(fake.riff(sound(file)))
    return root


@layout
def riff_in_lower_case(root):
    return lowered(riff(root))


@layout
def riff_beside_the_discs_files(root):
    for file in sounds(root):
        file.with_name(f"{file.name}.wav").write_bytes(fake.riff(sound(file)))
    return root


@layout
def riff_with_two_endings_alone(root):
    for file in sounds(riff(root)):
        file.rename(file.with_name(f"{file.name}.wav"))
    return root


@layout
def two_endings_in_lower_case(root):
    return lowered(riff_with_two_endings_alone(root))


@layout
def windows_line_ends(root):
    for file in root.rglob("*.PHN"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    return root


@layout
def tabs_and_no_last_line_end(root):
    for file in root.rglob("*.PHN"):
        file.write_text(file.read_text().replace(" ", "\t").rstrip())
    return root


# The tests


@pytest.fixture(scope="session")
def expected(written):
    """{split: [(name, samples, [(begin, end, phone)])]} of the written files, read without the reader."""
    result = {"train": [], "validation": [], "test": []}
    for file in sounds(written):
        half, _, speaker, name = file.relative_to(written).parts
        split = "train" if half == "TRAIN" else "validation" if speaker in DEVELOPMENT else "test"
        assert split != "test" or speaker in CORE_TEST
        rows = [line.split() for line in file.with_suffix(".PHN").read_text().splitlines()]
        if name != "SA1.WAV":
            parts = [(int(start), int(end), phone) for start, end, phone in rows]
            result[split].append((f"{speaker}/{name[:3]}", sound(file), parts))
    return result


def found(root):
    def parts(transcript):
        phones = [PHONES[place] for place in transcript.phones]
        return list(zip(transcript.starts.tolist(), transcript.ends.tolist(), phones, strict=True))

    read = corpus.read(corpus.find(root), {})
    assert all(item.samples == len(item.read()) for items in read.values() for item in items)
    return {
        split: [(item.name, tuple(item.read().tolist()), parts(item.transcript)) for item in items]
        for split, items in read.items()
    }


@pytest.mark.parametrize("build", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_holds_the_same(build, copied, expected):
    assert found(build(copied)) == expected


def test_what_is_expected_is_a_corpus(expected):
    assert {split: [name for name, _, _ in items] for split, items in expected.items()} == {
        "train": ["FSY000/SX1", "FSY000/SX2", "MSY001/SX1", "MSY001/SX2"],
        "validation": ["FADG0/SX1", "FADG0/SX2"],
        "test": ["MBPM0/SX1", "MBPM0/SX2"],
    }


@pytest.mark.parametrize("build", [lower_case, riff_beside_the_discs_files, with_what_else_lies_there])
def test_the_same_files_have_the_same_digest(build, written, copied):
    digests = {corpus.digest(corpus.read(corpus.find(root), {})) for root in (written, build(copied))}

    assert len(digests) == 1


@pytest.mark.parametrize("names", [("SX1.WAV", "SX1.WAV.wav"), ("sx1.wav", "sx1.wav.wav"), ("sx1.wav", "SX1.WAV.WAV")])
def test_the_discs_file_comes_before_the_copy_beside_it(names, copied, expected):
    speaker = copied / "TEST/DR4/MBPM0"
    (speaker / "SX1.WAV").rename(speaker / names[0])
    (speaker / names[1]).write_bytes(fake.riff([1] * 30_000))

    assert found(copied) == expected


def test_reading_writes_nothing(copied):
    before = {path: path.lstat().st_mtime_ns for path in copied.rglob("*")}

    found(copied)

    assert {path: path.lstat().st_mtime_ns for path in copied.rglob("*")} == before
