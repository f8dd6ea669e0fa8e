"""A short corpus of hostile files for every reader; `make fuzz` goes on from there."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz

MUTATIONS = 300
RUN = """
import sys
from tests import fuzz
fuzz.watch()
for data in fuzz.corpus_of(sys.argv[1], int(sys.argv[2])):
    try:
        fuzz.TARGETS[sys.argv[1]][0](data)
    except BaseException:
        sys.stderr.write(repr(data) + "\\n")
        raise
"""


@pytest.mark.long
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_hostile_files_are_refused_and_nothing_is_written_elsewhere(name):
    # In a process of its own: the watch over what is written cannot be taken back.
    command = [sys.executable, "-c", RUN, name, str(MUTATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
def test_the_watch_sees_a_write(tmp_path):
    code = "import sys; from tests import fuzz; fuzz.watch(); open(sys.argv[1], 'w')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert "Escaped: open" in done.stderr
    assert not (tmp_path / "x").exists()
