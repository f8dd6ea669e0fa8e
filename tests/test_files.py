"""Digests, seeds and names that follow from texts, and files that are whole or absent."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_keras.storage import files
from mimic_keras.storage.files import hash_json, write_json


def sha256(text):
    return hashlib.sha256(text.encode()).digest()


def test_the_key_does_not_depend_on_the_order_of_keys():
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})


def test_a_key_is_the_digest_of_compact_json(tmp_path):
    value = {"b": [1, 0.5, None, True], "a": "é", "c": tmp_path}
    text = '{"a":"\\u00e9","b":[1,0.5,null,true],"c":"' + str(tmp_path) + '"}'
    assert hash_json(value) == sha256(text).hex()[:16]
    with pytest.raises(ValueError, match="Out of range float"):
        hash_json([float("nan")])


@given(st.text(max_size=20))
def test_seeds_and_fractions_follow_from_a_text(text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    seed, fraction = files.derive_seed(text), files.derive_fraction(text)
    assert seed == int(digest[:8], 16) % 2**31
    assert fraction == (int(digest[:16], 16) >> 11) / 2**53
    assert (0 <= seed < 2**31, 0.0 <= fraction < 1.0) == (True, True)


def test_seeds_and_fractions_of_a_known_digest():
    # SHA-256 of "abc", FIPS 180-2, appendix B.1: ba7816bf 8f01cfea ...
    assert files.derive_seed("abc") == 0x3A7816BF
    assert files.derive_fraction("abc") == (0xBA7816BF8F01CFEA >> 11) / 2**53 == pytest.approx(0xBA7816BF / 2**32)


def test_digests_of_a_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("b", "inner/a", "artifact.json", "inner/artifact.json"):
        (tmp_path / name).write_text(name)
    names = {"b", "inner/a", "inner/artifact.json"}
    assert files.file_names(tmp_path) == names
    assert files.file_digests(tmp_path) == {name: sha256(name).hex() for name in sorted(names)}
    assert list(files.file_digests(tmp_path)) == sorted(names)
    assert files.file_names(tmp_path, "b") == {"artifact.json", "inner/a", "inner/artifact.json"}
    assert files.file_digest(tmp_path / "b") == sha256("b").hex()


def test_write_json_replaces_whole_files(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_what_json_files_look_like(tmp_path):
    write_json(tmp_path / "x.json", {"b": [1], "a": None})
    assert (tmp_path / "x.json").read_bytes() == b'{\n  "b": [\n    1\n  ],\n  "a": null\n}\n'


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_is_cut_short_changes_nothing(tmp_path, error):
    file = tmp_path / "x"
    file.write_bytes(b"old")

    def cut_short():
        with files.atomic_writer(file) as stream:
            stream.write(b"ne")
            stream.flush()
            assert file.read_bytes() == b"old"
            raise error

    with pytest.raises(type(error)):
        cut_short()
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps, sync, replace = [], files.os.fsync, files.Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (steps.append("sync"), sync(descriptor))[1])
    monkeypatch.setattr(files.Path, "replace", lambda path, to: (steps.append("rename"), replace(path, to))[1])
    files.write_bytes(tmp_path / "x", b"new")
    assert steps == ["sync", "rename"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_tree_is_synced_with_its_folders(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    for name in ("a", "inner/b"):
        (tmp_path / name).write_text(name)
    synced, real = [], files.os.fsync

    def counted(descriptor):
        synced.append(files.os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", counted)
    files.sync_tree(tmp_path)
    assert sorted(synced) == sorted(str(tmp_path / name) for name in ("a", "inner/b", "inner", ""))
    assert synced[-1] == str(tmp_path)


def test_what_is_written_is_json(tmp_path):
    files.write_json(tmp_path / "x.json", {"é": 1e-7})
    assert json.loads((tmp_path / "x.json").read_text()) == {"é": 1e-7}
