"""Running code inside another network namespace.

A namespace belongs to a thread, so the code runs in a thread of its own that ends with it: the
caller's threads never change namespace. A socket opened there stays in its namespace for good.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from ringfence.kernel.errors import NamespaceError

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run_in(netns_path: Path, function: Callable[[], T]) -> T:
    """Call `function` in the network namespace at `netns_path`; return or raise what it does.

    Raises NamespaceError when the namespace cannot be entered.
    """
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            enter(netns_path)
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller as it is
            outcome.set_exception(error)

    thread = threading.Thread(target=body, name=f"netns-{netns_path.name}", daemon=True)
    thread.start()
    return outcome.result()


def inode(netns_path: Path) -> int:
    """The number by which the kernel names the network namespace at `netns_path`."""
    try:
        return netns_path.stat().st_ino
    except OSError as error:
        raise NamespaceError(f"no network namespace at {netns_path}: {error.strerror}") from error


def enter(netns_path: Path) -> None:
    """Move the calling thread into a network namespace for good; raises NamespaceError."""
    try:
        fd = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"no network namespace at {netns_path}: {error.strerror}") from error
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise NamespaceError(
                f"cannot enter the network namespace {netns_path}: {reason}; "
                "run as root or grant CAP_SYS_ADMIN"
            )
    finally:
        os.close(fd)
