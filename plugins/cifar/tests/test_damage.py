"""Everything that a wrong or damaged root can be is said in one message, and nothing is trained on it."""

import gzip
import pickle
import random
import re
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mimic_keras_cifar import Cifar10, Cifar100, records
from mimic_keras_cifar.records import CIFAR10, CIFAR100

from mimic_keras.contracts import InputError
from plugins.cifar.tests import fake
from tests.tiny import command, tiny, write

BINARY = {
    Cifar10: "the binary version, cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
    Cifar100: "the binary version, cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html",
}
NOTHING = (
    "CIFAR-10: none of its files is in {root}. Expected there, in a folder cifar-10-batches-bin or an archive: "
    "data_batch_1.bin, data_batch_2.bin, data_batch_3.bin, data_batch_4.bin, data_batch_5.bin, test_batch.bin. "
    "Get {binary}"
)
PICKLES = "pickles, which can run any program when read. Get {binary}"
NO_ARCHIVE = "CIFAR-10: {root} cannot be read as a .tar.gz archive (...). Expected {binary}"
MISSING = [f"data_batch_{number}.bin: missing" for number in (1, 2, 3, 4, 5)] + ["test_batch.bin: missing"]
KINDS = []


def damaged(message, *lines, of=Cifar10):
    """Register `build(small, folder) -> root` with the whole message; '...' stands for what the system says."""

    def register(build):
        KINDS.append(pytest.param(of, build, "\n  ".join([message, *lines]), id=build.__name__))
        return build

    return register


# What is there is something else


@damaged("CIFAR-10: {root} does not exist. Get {binary}; without root it is downloaded")
def nowhere(small, folder):
    return folder / "nowhere"


@damaged(NOTHING)
def an_empty_folder(small, folder):
    return fake.write(folder / "empty", {})


@damaged(NOTHING)
def a_folder_of_other_files(small, folder):
    return fake.write(folder / "other", {"data_batch_1": b"", "readme.txt": b"", "data_batch_1.bin.part": b""})


@damaged(NOTHING)
def an_archive_of_other_files(small, folder):
    return fake.pack(folder / "other.tar.gz", {"other/readme.txt": b"read me", "other/data_batch_1.bin.part": b""})


@damaged("CIFAR-10: {root} is the archive's folder; give the archive, {root}/cifar-10-binary.tar.gz")
def the_folder_of_the_archive(small, folder):
    return small.pack(fake.write(folder / "downloads", {}) / "cifar-10-binary.tar.gz").parent


@damaged("CIFAR-10: {root} is CIFAR-100; name: cifar100 reads it")
def the_folder_of_cifar_100(small, folder):
    return fake.make(CIFAR100).write(folder)


@damaged("CIFAR-10: {root} is CIFAR-100; name: cifar100 reads it")
def the_parent_of_cifar_100(small, folder):
    return fake.make(CIFAR100).write(folder).parent


@damaged("CIFAR-10: {root} is CIFAR-100; name: cifar100 reads it")
def the_archive_of_cifar_100(small, folder):
    return fake.make(CIFAR100).pack(folder / "cifar-100-binary.tar.gz")


@damaged("CIFAR-100: {root} is CIFAR-10; name: cifar10 reads it", of=Cifar100)
def the_folder_of_cifar_10(small, folder):
    return fake.make(CIFAR10).write(folder)


@damaged("CIFAR-100: {root} is CIFAR-10; name: cifar10 reads it", of=Cifar100)
def the_archive_of_cifar_10(small, folder):
    return fake.make(CIFAR10).pack(folder / "cifar-10-binary.tar.gz")


@damaged("CIFAR-10: {root} is CIFAR-100; name: cifar100 reads it")
def the_folder_of_the_archive_of_cifar_100(small, folder):
    return fake.write(folder / "downloads", {"cifar-100-binary.tar.gz": b""})


@damaged(NOTHING)
def a_folder_of_somebody_elses_test_file(small, folder):
    return fake.write(folder / "other", {"test.bin": b""})


@damaged(NOTHING)
def folders_named_as_the_pickles(small, folder):
    for name in CIFAR100.python_files:
        (folder / "other" / name).mkdir(parents=True)
    return folder / "other"


# The Python version


def pickles(layout, trace):
    """{name: pickle} of the Python version; whoever unpickles one of them leaves a folder `trace` behind."""
    names = {
        CIFAR10.title: [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"],
        CIFAR100.title: ["train", "test", "meta"],
    }
    return {"readme.html": b"", **dict.fromkeys(names[layout.title], pickle.dumps(Trap(trace)))}


class Trap:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.mkdir, (self.trace,)


def python_folder(layout, folder):
    return fake.write(folder / layout.python_folder, pickles(layout, folder / "trace"))


@damaged(f"CIFAR-10: {{root}} is the Python version of CIFAR-10: {PICKLES}")
def the_python_version(small, folder):
    return python_folder(CIFAR10, folder)


@damaged(f"CIFAR-10: {{root}} is the Python version of CIFAR-10: {PICKLES}")
def the_parent_of_the_python_version(small, folder):
    return python_folder(CIFAR10, folder).parent


@damaged(f"CIFAR-10: {{root}} is the Python version of CIFAR-10: {PICKLES}")
def the_archive_of_the_python_version(small, folder):
    contents = {f"cifar-10-batches-py/{name}": data for name, data in pickles(CIFAR10, folder / "trace").items()}
    return fake.pack(folder / "cifar-10-python.tar.gz", contents)


@damaged(f"CIFAR-100: {{root}} is the Python version of CIFAR-100: {PICKLES}", of=Cifar100)
def the_python_version_of_cifar_100(small, folder):
    return python_folder(CIFAR100, folder)


@damaged(f"CIFAR-10: {{root}} is the Python version of CIFAR-100: {PICKLES}")
def the_python_version_of_the_other(small, folder):
    return python_folder(CIFAR100, folder).parent


# Files that are missing, cut, too long, twice, or none


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_4.bin: missing")
def a_file_missing(small, folder):
    return small.write(folder, **{"data_batch_4.bin": None})


@damaged("CIFAR-10 in {root}: 3 problems", *(MISSING[place] for place in (0, 2, 5)))
def files_missing(small, folder):
    return small.write(folder, **dict.fromkeys(["data_batch_1.bin", "data_batch_3.bin", "test_batch.bin"]))


@damaged("CIFAR-10 in {root}: 2 problems", *MISSING[3:5])
def files_missing_in_an_archive(small, folder):
    return small.pack(folder / "archive", **dict.fromkeys(["data_batch_4.bin", "data_batch_5.bin"]))


@damaged("CIFAR-100 in {root}: 1 problem", "train.bin: missing", of=Cifar100)
def the_training_file_missing(small, folder):
    return small.write(folder, **{"train.bin": None})


def lengthened(small, name, count):
    content = small.files()[name]
    return {name: content[:count] if count < 0 else content + bytes(count)}


CUT = "61,459 bytes, 19 records and 3,072 bytes of another; expected 20 records of 3,073 bytes"


@damaged("CIFAR-10 in {root}: 1 problem", f"test_batch.bin: {CUT}")
def a_file_cut(small, folder):
    return small.write(folder, **lengthened(small, "test_batch.bin", -1)).parent


@damaged("CIFAR-10 in {root}: 1 problem", f"test_batch.bin: {CUT}")
def a_file_cut_in_an_archive(small, folder):
    return small.pack(folder / "archive", **lengthened(small, "test_batch.bin", -1))


@damaged(
    "CIFAR-10 in {root}: 1 problem",
    "data_batch_2.bin: 58,387 bytes, 19 records; expected 20 records of 3,073 bytes",
)
def a_record_missing(small, folder):
    return small.write(folder, **lengthened(small, "data_batch_2.bin", -3073))


@damaged(
    "CIFAR-100 in {root}: 1 problem",
    "train.bin: 310,474 bytes, 101 records; expected 100 records of 3,074 bytes",
    of=Cifar100,
)
def a_record_too_many(small, folder):
    return small.write(folder, **lengthened(small, "train.bin", 3074))


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_5.bin: 0 bytes, 0 records; expected 20 records of 3,073 bytes")
def an_empty_file(small, folder):
    return small.write(folder, **{"data_batch_5.bin": b""})


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_2.bin: is not a file")
def a_folder_in_place_of_a_file(small, folder):
    root = small.write(folder, **{"data_batch_2.bin": None})
    (root / "data_batch_2.bin").mkdir()
    return root


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_3.bin: missing")
def a_link_to_nothing(small, folder):
    root = small.write(folder, **{"data_batch_3.bin": None})
    (root / "data_batch_3.bin").symlink_to(folder / "nowhere")
    return root


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_4.bin: the same as data_batch_2.bin")
def a_file_twice(small, folder):
    return small.write(folder, **{"data_batch_4.bin": small.files()["data_batch_2.bin"]})


@damaged("CIFAR-10 in {root}: 1 problem", "test_batch.bin: the same as data_batch_5.bin")
def the_test_images_among_the_training_images(small, folder):
    return small.pack(folder / "archive", **{"test_batch.bin": small.files()["data_batch_5.bin"]})


# Labels


def relabelled(small, name, labels):
    """A file with other bytes at {(record, byte): value}."""
    content = bytearray(small.files()[name])
    for (record, byte), value in labels.items():
        content[record * small.record + byte] = value
    return {name: bytes(content)}


@damaged(
    "CIFAR-10 in {root}: 1 problem",
    "data_batch_3.bin: 2 labels out of range, the first 10 in record 4; expected 0 to 9",
)
def labels_out_of_range(small, folder):
    return small.write(folder, **relabelled(small, "data_batch_3.bin", {(4, 0): 10, (19, 0): 255}))


@damaged(
    "CIFAR-100 in {root}: 2 problems",
    "test.bin: 1 coarse label out of range, the first 20 in record 0; expected 0 to 19",
    "test.bin: 3 fine labels out of range, the first 200 in record 5; expected 0 to 99",
    of=Cifar100,
)
def both_labels_out_of_range(small, folder):
    labels = {(0, 0): 20, (5, 1): 200, (6, 1): 100, (7, 1): 255}
    return small.write(folder, **relabelled(small, "test.bin", labels))


@damaged(
    "CIFAR-10 in {root}: 4 problems",
    "data_batch_1.bin: 20 labels out of range, the first 77 in record 0; expected 0 to 9",
    "data_batch_3.bin: the same as data_batch_2.bin",
    f"test_batch.bin: {CUT}",
    "data_batch_5.bin: missing",
)
def several_at_once(small, folder):
    changes = relabelled(small, "data_batch_1.bin", {(record, 0): 77 for record in range(20)})
    changes |= {"data_batch_3.bin": small.files()["data_batch_2.bin"], "data_batch_5.bin": None}
    return small.write(folder, **changes, **lengthened(small, "test_batch.bin", -1))


# Archives that are none, damaged, or built to harm


@damaged(NO_ARCHIVE)
def random_bytes(small, folder):
    (folder / "cifar-10-binary.tar.gz").write_bytes(random.Random(0).randbytes(5000))
    return folder / "cifar-10-binary.tar.gz"


@damaged(NO_ARCHIVE)
def nothing_at_all(small, folder):
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"")
    return folder / "cifar-10-binary.tar.gz"


@damaged(NO_ARCHIVE)
def a_page_of_the_site(small, folder):
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20)
    return folder / "cifar-10-binary.tar.gz"


@damaged(NO_ARCHIVE)
def a_zip_file(small, folder):
    with zipfile.ZipFile(folder / "cifar-10-binary.zip", "w") as file:
        for name, content in small.files().items():
            file.writestr(f"cifar-10-batches-bin/{name}", content)
    return folder / "cifar-10-binary.zip"


@damaged(NO_ARCHIVE)
def a_file_of_the_folder(small, folder):
    return small.write(folder) / "data_batch_1.bin"


@damaged("CIFAR-10 in {root}: 4 problems", "archive: is truncated or damaged (...)", *MISSING[3:])
def a_truncated_archive(small, folder):
    file = small.pack(folder / "archive")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * 0.6)])
    return file


@damaged("CIFAR-10 in {root}: 1 problem", "archive: is truncated or damaged (...)")
def an_archive_without_its_last_bytes(small, folder):
    file = small.pack(folder / "archive")
    file.write_bytes(file.read_bytes()[:-4])
    return file


def flipped(small, folder):
    """Images do not compress, so that a changed byte of the archive is a changed pixel and breaks nothing but sums."""
    file = small.pack(folder / "archive")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    return file


@damaged("CIFAR-10 in {root}: 1 problem", "archive: is truncated or damaged (CRC check failed ...)")
def a_changed_byte(small, folder):
    return flipped(small, folder)


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@damaged("CIFAR-10 in {root}: 1 problem", "data_batch_1.bin: missing")
def a_symbolic_link_in_an_archive(small, folder):
    (folder / "outside").write_bytes(small.files()["data_batch_1.bin"])
    member = link("cifar-10-batches-bin/data_batch_1.bin", str(folder / "outside"))
    return small.pack(folder / "archive", **{"data_batch_1.bin": member})


@damaged("CIFAR-10 in {root}: 1 problem", "test_batch.bin: missing")
def a_hard_link_in_an_archive(small, folder):
    member = link("cifar-10-batches-bin/test_batch.bin", "cifar-10-batches-bin/data_batch_1.bin", tarfile.LNKTYPE)
    return small.pack(folder / "archive", **{"test_batch.bin": member})


@damaged("CIFAR-10 in {root}: 1 problem", "test_batch.bin: missing")
def a_device_in_an_archive(small, folder):
    member = link("cifar-10-batches-bin/test_batch.bin", "", tarfile.CHRTYPE)
    member.devmajor, member.devminor = 1, 5
    return small.pack(folder / "archive", **{"test_batch.bin": member})


def huge(name):
    member = tarfile.TarInfo(name)
    member.size = 10**15
    return member


@damaged(
    "CIFAR-10 in {root}: 2 problems",
    "archive: is truncated or damaged (... claims to have 1,000,000,000,000,000 bytes)",
    "test_batch.bin: missing",
)
def a_huge_member(small, folder):
    return small.pack(folder / "archive", **{"test_batch.bin": huge("cifar-10-batches-bin/test_batch.bin")})


@damaged(NO_ARCHIVE.replace("...", "... claims to have 1,000,000,000,000,000 bytes"))
def a_huge_member_of_another_name(small, folder):
    return fake.pack(folder / "archive", {"readme.html": huge("cifar-10-batches-bin/readme.html"), **small.files()})


@damaged(NO_ARCHIVE.replace("...", "... claims to have 70,000 bytes"))
def a_long_name(small, folder):
    with gzip.open(folder / "archive", "wb") as content:
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 70_000
        content.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(70_000))
    return folder / "archive"


# The tests


def tree(folder):
    """{path: (kind, size, time of the last change)} of everything below."""
    return {
        path: (stat.S_IFMT(found.st_mode), found.st_size, found.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if (found := path.lstat())
    }


def check(message, expected, root, of):
    """The message is the expected one, in which '...' stands for what the system says."""
    expected = expected.replace("{root}", str(root)).replace("{binary}", BINARY[of])
    assert re.fullmatch(re.escape(expected).replace(re.escape("..."), ".*"), message), message


@pytest.mark.parametrize(("of", "build", "expected"), KINDS)
def test_what_is_wrong_is_said_and_nothing_is_written(of, build, expected, tmp_path, monkeypatch):
    small = fake.take_the_place_of(of, monkeypatch)
    root = build(small, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)

    with pytest.raises(InputError) as caught:
        of(root, validation=30).prepare(tmp_path)

    check(str(caught.value), expected, root, of)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("of", "build", "expected"), KINDS[::3])
def test_the_command_ends_with_2_and_trains_nothing(of, build, expected, tmp_path, monkeypatch, capsys):
    small = fake.take_the_place_of(of, monkeypatch)
    root = build(small, fake.write(tmp_path / "files", {}))
    monkeypatch.chdir(fake.write(tmp_path / "work", {}))
    experiment = tiny(dataset={"name": of.__name__.lower(), "root": str(root), "validation": 30}, baseline=None)

    code = command("run", write(tmp_path, experiment), "--home", "home", "--runs_dir", "runs")

    assert code == 2
    lines = capsys.readouterr().err.splitlines(keepends=True)
    (start,) = [number for number, line in enumerate(lines) if line.startswith("mimic-keras: ")]
    opening = f"mimic-keras: data set {of.__name__.lower()}: "
    check("".join(lines[start:]).removeprefix(opening).rstrip("\n"), expected, root, of)
    assert {path.name for path in (tmp_path / "work" / "home").iterdir()} == {".users", "datasets"}
    assert not list((tmp_path / "work" / "runs").rglob("metrics.json"))
    assert not list((tmp_path / "work" / "saved_models").iterdir())
    assert not (tmp_path / "files" / "trace").exists()


def test_the_trap_in_the_pickles_would_spring(tmp_path):
    pickle.loads(pickles(CIFAR10, tmp_path / "trace")["data_batch_1"])

    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("prefix", ["../../", "/", "{folder}/", "cifar-10-batches-bin/../../"])
def test_paths_that_lead_out_of_an_archive_lead_nowhere(cifar10, prefix, tmp_path, monkeypatch):
    inner = fake.write(tmp_path / "a" / "b", {})
    monkeypatch.chdir(inner)
    prefix = prefix.format(folder=tmp_path)
    file = fake.pack(inner / "archive", {prefix + name: data for name, data in cifar10.files().items()})
    before = tree(tmp_path)

    images, _ = records.read(cifar10.layout, file)

    # Only the last part of a path is looked at, and the content never leaves the memory.
    np.testing.assert_array_equal(images, cifar10.images)
    assert tree(tmp_path) == before
    assert not Path("/data_batch_1.bin").exists()


def test_a_stray_file_does_not_hide_the_folder(cifar10, tmp_path):
    root = cifar10.write(tmp_path).parent
    (root / "test_batch.bin").write_bytes(b"stray")

    np.testing.assert_array_equal(records.read(cifar10.layout, root)[0], cifar10.images)


def test_a_file_that_somebody_is_writing_is_no_data(cifar10, tmp_path, monkeypatch):
    root, real = cifar10.write(tmp_path), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: real(file)[: -CIFAR10.record])

    with pytest.raises(InputError, match=r"data_batch_1.bin: .* 19 records; expected 20 records"):
        records.read(cifar10.layout, root)


def test_the_users_home_is_found(cifar10, tmp_path, monkeypatch):
    cifar10.write(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    np.testing.assert_array_equal(records.read(cifar10.layout, Path("~"))[0], cifar10.images)


def test_the_first_of_two_members_of_a_name_counts(cifar10, tmp_path):
    file = fake.pack(
        tmp_path / "archive",
        {**{f"first/{name}": data for name, data in cifar10.files().items()}, "second/test_batch.bin": b"another"},
    )

    np.testing.assert_array_equal(records.read(cifar10.layout, file)[0], cifar10.images)


def test_a_member_that_unpacks_to_much_more_stays_out_of_memory(cifar10, tmp_path):
    size = 64 * 2**20
    file = cifar10.pack(tmp_path / "archive", **{"data_batch_1.bin": bytes(size)})
    assert file.stat().st_size < 2**20

    tracemalloc.start()
    with pytest.raises(InputError, match=f"data_batch_1.bin: {size:,} bytes, "):
        records.read(cifar10.layout, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 * 2**20


@pytest.mark.parametrize("position", [0, 50, 96])
def test_no_changed_byte_of_an_archive_passes_for_data(cifar10, position, tmp_path):
    file = cifar10.pack(tmp_path / "archive")
    content = bytearray(file.read_bytes())
    content[len(content) * position // 100] ^= 0x10
    file.write_bytes(content)

    with pytest.raises(InputError, match=r"is truncated or damaged|cannot be read as a \.tar\.gz archive"):
        records.read(cifar10.layout, file)


def refuse(*places, **_):
    raise PermissionError(13, "Permission denied", *map(str, places[:1]))


def test_a_file_without_permission_is_named(cifar10, tmp_path, monkeypatch):
    root, real = cifar10.write(tmp_path), Path.read_bytes

    def read_bytes(file):
        return refuse() if file.name == "data_batch_2.bin" else real(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)

    with pytest.raises(InputError) as caught:
        records.read(cifar10.layout, root)

    assert str(caught.value) == (
        f"CIFAR-10 in {root}: 1 problem\n  data_batch_2.bin: cannot be read: Permission denied"
    )


def test_a_folder_without_permission_is_named(cifar10, tmp_path, monkeypatch):
    root = cifar10.write(tmp_path).parent
    monkeypatch.setattr(Path, "exists", lambda path: path == root or refuse(path))

    with pytest.raises(InputError) as caught:
        records.read(cifar10.layout, root)

    assert str(caught.value) == f"CIFAR-10: {root / 'data_batch_1.bin'} cannot be read: Permission denied"


def test_an_archive_without_permission_is_named(cifar10, tmp_path, monkeypatch):
    file = cifar10.pack(tmp_path / "archive")
    monkeypatch.setattr("gzip.open", refuse)

    with pytest.raises(InputError) as caught:
        records.read(cifar10.layout, file)

    assert str(caught.value).startswith(
        f"CIFAR-10: {file} cannot be read as a .tar.gz archive ([Errno 13] Permission denied: "
    )
