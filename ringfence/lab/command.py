"""Run programs, and turn their failures into errors that say what failed."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringfence.lab.errors import LabError
from ringfence.lab.progress import Note

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL = 2000  # characters of output that an error quotes


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment with the system directories in PATH, and ``extra`` over it."""
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:{SYSTEM_PATH}", **extra}


def run(argv: Sequence[str | Path], *, stdin: str | None = None) -> str:
    """Run a program to its end and return what it printed.

    Raises LabError with the end of its error output when it fails or is missing.
    """
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
    except FileNotFoundError as error:
        raise missing_program(str(argv[0])) from error
    if done.returncode:
        raise failed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_noting(
    argv: Sequence[str | Path], note: Note, *, cwd: Path | None = None, env: Mapping[str, str]
) -> None:
    """Run a long program; each line that it prints goes to ``note``."""
    try:
        process = subprocess.Popen(
            [str(a) for a in argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env=environment(**env),
        )
    except FileNotFoundError as error:
        raise missing_program(str(argv[0])) from error
    output = ""
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            output = (output + line)[-_TAIL:]
            note(line.strip())
    if process.returncode:
        raise failed(argv, process.returncode, output)


def failed(argv: Sequence[str | Path], code: int, output: str) -> LabError:
    """The error of a program that ended with ``code``."""
    words = " ".join(str(a) for a in argv[:6])
    return LabError(f"{words} … failed with exit code {code}:\n{output.strip()[-_TAIL:]}")


def missing_program(name: str) -> LabError:
    """The error of a program that is not installed."""
    return LabError(f"{name} is not installed; run `make setup`")
