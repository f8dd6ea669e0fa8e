"""Work in a process of its own: its result, its errors, and its death come back as one message."""

import os
import sys

import pytest

from mimic_keras.serving import isolation

# What the process does at "work"; it prints before, as libraries do.
MODULE = """
import os, sys
from mimic_keras.contracts import RunError
from mimic_keras.serving import isolation

def work(at):
    at("work")
    print("a library's notice")
    os.write(1, b"another, from C\\n")
    {action}

isolation.run(work)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that does `action` and returns its name."""

    def write(action):
        (tmp_path / "isolated_work.py").write_text(MODULE.format(action=action))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        return "isolated_work"

    return write


def test_the_result_comes_back_whatever_libraries_print(module):
    found = isolation.call(module("return [sys.argv[1], os.environ['SET']]"), "x", variables={"SET": "1"})
    assert found == ["x", "1"]


@pytest.mark.parametrize(
    ("action", "message", "died_at"),
    [
        ("raise RunError('it is wrong')", "it is wrong", None),
        ("os.abort()", "the process died (SIGABRT) at work", "work"),
        ("raise KeyError('a bug')", "KeyError: 'a bug'", None),
    ],
)
def test_what_goes_wrong_is_one_message(module, action, message, died_at):
    with pytest.raises(isolation.ProcessError) as error:
        isolation.call(module(action))
    assert str(error.value).endswith(message)
    assert error.value.died_at == died_at
