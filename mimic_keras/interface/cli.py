"""The `mimic-keras` command: how a call is made of its arguments, and how errors become messages and exit codes.

Exit codes: 0 done, 2 the input is wrong, 128 plus its number for a signal (129 SIGHUP, 130 SIGINT, 143 SIGTERM), 1
anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import traceback
from types import FrameType

from mimic_keras.contracts import InputError, MimicError
from mimic_keras.interface.arguments import OF_THE_PARSER, parse


def main(arguments: argparse.Namespace) -> int:
    """Run one command; every failure ends in one message and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    again = shlex.join(["mimic-keras", *sys.argv[1:]])
    try:
        arguments.function(**{name: value for name, value in vars(arguments).items() if name not in OF_THE_PARSER})
        return 0
    except InputError as error:
        return _fail(arguments, str(error), 2)
    except KeyboardInterrupt:
        return _fail(arguments, f"interrupted; what was finished is kept. To resume: {again}", 130)
    except _Terminated as error:
        return _fail(arguments, f"terminated; what was finished is kept. To resume: {again}", 128 + error.number)
    except BrokenPipeError:  # the reader of our output, such as head, has enough; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A failed write does not know its file.
        folders = [str(getattr(arguments, name, "")) for name in ("home", "runs_dir", "saved_models_dir")]
        reason = f"{error.filename or ' or '.join(filter(None, folders))}: {error.strerror or error}"
        return _fail(arguments, f"{reason}; what was finished is kept. To resume once that is fixed: {again}", 1)
    except MimicError as error:
        return _fail(arguments, str(error), 1)
    except Exception as error:  # a bug: one line, and the traceback on demand
        return _fail(arguments, f"{type(error).__name__}: {error}", 1)


def entry() -> None:
    """The console script."""
    _open_standard_streams()
    sys.exit(main(parse(sys.argv)))


def _open_standard_streams() -> None:
    """Have a closed standard stream go nowhere, and text that the locale does not have be escaped, not be an error."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened would take its number, and receive what is printed
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _fail(arguments: argparse.Namespace, message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # after SIGHUP there may be no terminal
        if arguments.debug:
            traceback.print_exc()
        print(f"mimic-keras: {message}", file=sys.stderr)
    return code


class _Terminated(BaseException):
    """SIGTERM or SIGHUP; a BaseException like KeyboardInterrupt, so that no handler of errors catches it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated(number)
