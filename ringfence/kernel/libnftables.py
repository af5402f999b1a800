"""libnftables, in the calling thread's network namespace."""

import ctypes
import os
import threading
from functools import cache
from pathlib import Path

import msgspec

from ringfence.kernel.errors import KernelError
from ringfence.kernel.rules import Listing

# Flags of nft_ctx_output_set_flags, libnftables(3).
HANDLE, JSON, NUMERIC, TERSE = 1 << 3, 1 << 4, 0xF << 7, 1 << 11
# libnftables promises nothing about contexts in several threads.
_lock = threading.Lock()
# libnftables waits by select(2), and the C library ends the process for a descriptor from
# FD_SETSIZE on. The rest is for what other threads open meanwhile.
_HIGHEST_FD = 1024 - 64


class NftError(KernelError):
    """nftables refused a command, or holds what nobody of us wrote there."""


def objects(listed: str) -> Listing:
    """What nft lists as JSON; raises NftError where that is not understood."""
    try:
        found: Listing = msgspec.json.decode(listed)["nftables"]
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise NftError(f"nftables' answer is not understood: {error}") from error
    for one in found:
        # Who writes by netlink may make a rule that says nothing, and nft lists it without.
        one.get("rule", {}).setdefault("expr", [])
    return found


def run(commands: str, flags: int) -> str:
    """Run commands in the thread's namespace and return what they print; raises NftError."""
    nftables = library()
    with _lock:
        _check_room()
        # The context opens its netlink socket at once: here is where the namespace is chosen.
        context = nftables.nft_ctx_new(0)
        if not context:
            raise NftError("libnftables gives no context: out of memory")
        try:
            nftables.nft_ctx_buffer_output(context)
            nftables.nft_ctx_buffer_error(context)
            nftables.nft_ctx_output_set_flags(context, flags)
            failed = nftables.nft_run_cmd_from_buffer(context, commands.encode())
            if failed:
                said: bytes = nftables.nft_ctx_get_error_buffer(context)
                raise NftError(f"nftables refused: {said.decode(errors='replace').strip()}")
            printed: bytes = nftables.nft_ctx_get_output_buffer(context)
            return printed.decode(errors="replace")
        finally:
            nftables.nft_ctx_free(context)


def _check_room() -> None:
    with Path(os.devnull).open() as lowest_free:
        if lowest_free.fileno() > _HIGHEST_FD:
            raise NftError(
                f"more than {_HIGHEST_FD} files are open in this process, and nftables' library"
                " works with no more: find out what opens them, and restart it"
            )


@cache
def library() -> ctypes.CDLL:
    """The library; raises NftError where this machine has none."""
    try:
        loaded = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise NftError(f"{error}; install libnftables1 (Debian, Ubuntu)") from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
