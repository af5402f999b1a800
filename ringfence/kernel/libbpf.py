"""libbpf, as much of it as we call, through ctypes.

The library comes with every distribution and needs no compiler on the node; it relocates our
objects to the running kernel. Functions here return what libbpf returns and raise BpfError with
libbpf's own words where it reports an error.
"""

import ctypes
import errno
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import cache
from typing import Any

from ringfence.kernel.errors import BpfError

SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
"""What is called with each record of a ring buffer: context, address, length."""
_PRINTER = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_WARN = 0

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__map_flags": (c_uint32, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_map__set_initial_value": (c_int, (c_void_p, c_char_p, c_size_t)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, ctypes.c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_lookup_batch": (c_int, (c_int, *(c_void_p,) * 4, POINTER(c_uint32), c_void_p)),
    "bpf_map_lookup_and_delete_batch": (
        c_int,
        (c_int, *(c_void_p,) * 4, POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_delete_batch": (c_int, (c_int, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_map__set_pin_path": (c_int, (c_void_p, c_char_p)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_link_update": (c_int, (c_int, c_int, c_void_p)),
    "bpf_tc_hook_create": (c_int, (c_void_p,)),
    "bpf_tc_hook_destroy": (c_int, (c_void_p,)),
    "bpf_tc_attach": (c_int, (c_void_p, c_void_p)),
    "bpf_tc_detach": (c_int, (c_void_p, c_void_p)),
    "bpf_raw_tracepoint_open": (c_int, (c_char_p, c_int)),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "ring_buffer__new": (c_void_p, (c_int, SAMPLE, c_void_p, c_void_p)),
    "ring_buffer__consume": (c_int, (c_void_p,)),
    "ring_buffer__free": (None, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "libbpf_set_print": (c_void_p, (_PRINTER,)),
}

_warnings: list[str] = []


def _keep_warning(level: int, form: bytes, arguments: int) -> int:
    if level == _WARN:
        text = ctypes.create_string_buffer(4096)
        ctypes.CDLL(None).vsnprintf(text, c_size_t(len(text)), form, c_void_p(arguments))
        _warnings.append(text.value.decode(errors="replace").strip())
    return 0


_printer = _PRINTER(_keep_warning)  # kept alive: libbpf calls it for as long as we run


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise BpfError("libbpf 1 is missing: install it with 'apt-get install libbpf1'") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_printer)
    return library


def call(name: str, *arguments: object, doing: str, accept: tuple[int, ...] = ()) -> int:
    """Call one libbpf function; returns its result, or minus an errno listed in `accept`.

    Raises BpfError, which says that `doing` failed and why, for any other error: a negative
    result, or a null pointer.
    """
    function = getattr(_library(), name)
    _warnings.clear()
    ctypes.set_errno(0)
    result: int | None = function(*arguments)
    if result is None:  # ctypes' null pointer
        result = -(ctypes.get_errno() or errno.EINVAL)
    if result >= 0 or -result in accept:
        return result
    raise BpfError(f"cannot {doing}: {_explain(-result)}")


def close_object(handle: int) -> None:
    """Free an object and all that only it holds."""
    _library().bpf_object__close(handle)


def close_ring(handle: int) -> None:
    """Free what reads a ring buffer."""
    _library().ring_buffer__free(handle)


def _explain(code: int) -> str:
    if code == errno.EPERM:
        return (
            f"{os.strerror(code)}; run as root or grant CAP_BPF, CAP_PERFMON, "
            "CAP_NET_ADMIN and CAP_SYS_ADMIN"
        )
    return "\n".join([os.strerror(code), *_warnings])
