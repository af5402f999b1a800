"""BPF objects: found on disk, loaded, their maps read in batches and never while in use."""

import ctypes
import errno
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ringfence
from ringfence.kernel import libbpf
from ringfence.kernel.errors import BpfError

_PROGRAM_NAME_AT, _PROGRAM_NAME_END = 64, 80  # in struct bpf_prog_info
_BTF = Path("/sys/kernel/btf/vmlinux")


def object_path(name: str) -> Path:
    """Where the compiled `name`.bpf.o is: in the installed package, else in a checkout's build/.

    Raises BpfError when it is in neither.
    """
    package = Path(ringfence.__file__).parent
    candidates = [package / "bpf" / f"{name}.bpf.o", package.parent / "build" / f"{name}.bpf.o"]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = " nor ".join(str(candidate) for candidate in candidates)
    raise BpfError(
        f"no BPF object at {looked}: build it with 'make -C bpf' (needs clang and libbpf-dev)"
    )


def map_layouts(path: Path, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Type, flags, and sizes of a key and a value, of maps of an object that is not loaded."""
    handle = _open(path)
    try:
        found = {name: _find(handle, "map", name, path.name) for name in names}
        return {
            name: tuple(
                libbpf.call(f"bpf_map__{what}", held, doing=f"read the layout of the map {name}")
                for what in ("type", "map_flags", "key_size", "value_size")
            )
            for name, held in found.items()
        }
    finally:
        libbpf.close_object(handle)


class BpfObject:
    """One loaded object file. Its maps and programs live until `close`, or with their links."""

    def __init__(
        self,
        path: Path,
        max_entries: Mapping[str, int],
        settings: bytes | None = None,
        leave_out: Collection[str] = (),
        pins: Mapping[str, Path] | None = None,
    ) -> None:
        """Load `path`; `max_entries` gives the size of the maps whose size is not in the file.

        `settings` takes the place of the object's constant of that name. `leave_out`: programs
        that nobody will use; the kernel takes its time to verify each. `pins`: where which maps
        are pinned; a map that is there already is taken over with its contents.
        """
        if not _BTF.exists():
            raise BpfError(
                f"{_BTF} is missing: the kernel has no type information; "
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
            )
        self._name = path.name
        self._handle = _open(path)
        try:
            for name, entries in max_entries.items():
                libbpf.call(
                    "bpf_map__set_max_entries", self._find("map", name), entries,
                    doing=f"size the map {name}",
                )  # fmt: skip
            for name, pin in (pins or {}).items():
                libbpf.call(
                    "bpf_map__set_pin_path", self._find("map", name), bytes(pin),
                    doing=f"pin the map {name}",
                )  # fmt: skip
            if settings is not None:
                libbpf.call(
                    "bpf_map__set_initial_value", self._find("map", ".rodata.settings"),
                    settings, len(settings), doing="set the program's settings",
                )  # fmt: skip
            for name in leave_out:
                libbpf.call(
                    "bpf_program__set_autoload", self._find("program", name), False,
                    doing=f"leave out the program {name}",
                )  # fmt: skip
            libbpf.call("bpf_object__load", self._handle, doing=f"load the BPF object {path}")
        except BpfError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the maps and programs; the kernel frees those that nothing else holds."""
        libbpf.close_object(self._handle)

    def map_fd(self, name: str) -> int:
        """The descriptor of a map, valid until `close`."""
        return libbpf.call("bpf_map__fd", self._find("map", name), doing=f"use the map {name}")

    def program_fd(self, name: str) -> int:
        """The descriptor of a program, valid until `close`."""
        return libbpf.call(
            "bpf_program__fd", self._find("program", name), doing=f"use the program {name}"
        )

    def _find(self, kind: str, name: str) -> int:
        return _find(self._handle, kind, name, self._name)


def _open(path: Path) -> int:
    return libbpf.call(
        "bpf_object__open_file", bytes(path), None, doing=f"open the BPF object {path}"
    )


def _find(handle: int, kind: str, name: str, file: str) -> int:
    return libbpf.call(
        f"bpf_object__find_{kind}_by_name", handle, name.encode(),
        doing=f"find the {kind} {name} in {file}",
    )  # fmt: skip


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_char_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run_on_frame(
    program_fd: int, frame: bytes, context: bytes | None = None, repeat: int = 1
) -> int:
    """Run a TC program on an Ethernet frame (BPF_PROG_TEST_RUN); nanoseconds per run.

    `context` is a struct __sk_buff, of which the kernel takes a few members (gso_size, cb, …).
    """
    options = _TestRun(
        sz=ctypes.sizeof(_TestRun),
        data_in=frame,
        data_size_in=len(frame),
        ctx_in=context,
        ctx_size_in=len(context or b""),
        repeat=repeat,
    )
    libbpf.call("bpf_prog_test_run_opts", program_fd, ctypes.byref(options), doing="run a program")
    return int(options.duration)


class DoubleBuffer:
    """Two hash maps of which programs write to one while user space empties the other.

    The object names them `name`_0 and `name`_1, and `name` is the array of maps through which
    the programs find the current one.
    """

    def __init__(
        self, loaded: BpfObject, name: str, key: np.dtype[Any], value: np.dtype[Any], size: int
    ) -> None:
        self._current = loaded.map_fd(name)
        self._maps = [loaded.map_fd(f"{name}_{i}") for i in range(2)]
        # Each processor may add one while another finds that there is still room.
        self._key, self._value = key, value
        self.size = size + possible_processors()
        # The maps may be a predecessor's.
        self._written = [_map_id(each) for each in self._maps].index(self._written_id())

    def swap(self) -> None:
        """Have programs write to the other map; this one is then at rest.

        Nothing is lost or counted twice: the kernel's update of an array of maps returns only
        when every program that was running at the time has ended (`maybe_wait_bpf_programs`).
        """
        self._written = 1 - self._written
        libbpf.call(
            "bpf_map_update_elem", self._current, ctypes.byref(ctypes.c_uint32(0)),
            ctypes.byref(ctypes.c_int(self._maps[self._written])), 0,
            doing="swap the buffers",
        )  # fmt: skip

    def resting(self, part: int) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """The keys and values of the map at rest, in no order, as `read_parts` gives them."""
        return read_parts(self._maps[1 - self._written], self._key, self._value, part)

    def delete(self, keys: np.ndarray[Any, Any]) -> None:
        """Delete keys of the map at rest, all of which it holds."""
        if len(keys):
            libbpf.call(
                "bpf_map_delete_batch", self._maps[1 - self._written], keys.ctypes.data,
                ctypes.byref(ctypes.c_uint32(len(keys))), None, doing="empty a map",
            )  # fmt: skip

    def drain(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Swap the maps and empty the one then at rest: its keys and values, in no order."""
        self.swap()
        at_rest = self._maps[1 - self._written]
        return read_all(at_rest, self._key, self._value, self.size, delete=True)

    def _written_id(self) -> int:
        held = ctypes.c_uint32()
        libbpf.call(
            "bpf_map_lookup_elem", self._current, ctypes.byref(ctypes.c_uint32(0)),
            ctypes.byref(held), doing="find the current buffer",
        )  # fmt: skip
        return held.value


def _map_id(map_fd: int) -> int:
    """By which the kernel knows a map; the second member of struct bpf_map_info."""
    info, size = (ctypes.c_uint32 * 2)(), ctypes.c_uint32(8)
    libbpf.call(
        "bpf_obj_get_info_by_fd", map_fd, ctypes.byref(info), ctypes.byref(size),
        doing="identify a map",
    )  # fmt: skip
    return info[1]


def program_name(program_fd: int) -> bytes:
    """As the kernel has it, cut to 15 bytes: a member of struct bpf_prog_info."""
    info, size = ctypes.create_string_buffer(_PROGRAM_NAME_END), ctypes.c_uint32(_PROGRAM_NAME_END)
    libbpf.call(
        "bpf_obj_get_info_by_fd", program_fd, info, ctypes.byref(size), doing="name a program"
    )
    return info.raw[_PROGRAM_NAME_AT:].rstrip(b"\0")


def read_all(
    map_fd: int, key: np.dtype[Any], value: np.dtype[Any], size: int, *, delete: bool = False
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All keys and values of a hash map of at most `size` entries, in one system call."""
    parts = list(read_parts(map_fd, key, value, size, delete=delete))
    if len(parts) > 1:
        raise BpfError(f"a map holds more than its {size} entries")
    return parts[0]


def read_parts(
    map_fd: int, key: np.dtype[Any], value: np.dtype[Any], size: int, *, delete: bool = False
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The keys and values of a hash map, `size` at a time; each part is good until the next.

    For a per-processor map `value` is a dtype with a leading subarray, one item a processor.
    """
    keys, values = np.empty(size, key), np.empty(size, value)
    start, cursor, count = None, ctypes.c_uint32(), ctypes.c_uint32()
    result = 0
    while result != -errno.ENOENT:  # the kernel's word for "that was the last"
        count.value = size
        result = libbpf.call(
            "bpf_map_lookup_and_delete_batch" if delete else "bpf_map_lookup_batch",
            map_fd, start, ctypes.byref(cursor), keys.ctypes.data, values.ctypes.data,
            ctypes.byref(count), None, doing="read a map", accept=(errno.ENOENT,),
        )  # fmt: skip
        start = ctypes.byref(cursor)
        yield keys[: count.value], values[: count.value]


def possible_processors() -> int:
    """How many values a per-processor map holds for each key."""
    return libbpf.call("libbpf_num_possible_cpus", doing="count the processors")
