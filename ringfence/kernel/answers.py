"""Answers of DNS servers, as bpf/dns.h copies them out of packets."""

import ctypes
import errno
import struct
from dataclasses import dataclass

from ringfence.kernel import libbpf
from ringfence.kernel.bpf import BpfObject
from ringfence.kernel.clock import boot_ns
from ringfence.model.address import Address

_FRAME = struct.Struct("=16s16sQHH")  # struct answer, up to its message
_ENOUGH = errno.ENOBUFS


@dataclass(frozen=True, slots=True)
class Answer:
    """One UDP message from port 53 that says it is an answer."""

    at_ns: int
    """Epoch ns."""
    resolver: Address
    client: Address
    client_port: int
    message: bytes
    """As it came: from anybody, with anything in it."""


class Answers:
    """Reads the ring buffer `answers` of a loaded program. Not thread-safe."""

    def __init__(self, loaded: BpfObject) -> None:
        self._most = 0
        self._taken: list[bytes] = []
        self._sample = libbpf.SAMPLE(self._keep)  # alive for as long as libbpf may call it
        self._ring = libbpf.call(
            "ring_buffer__new", loaded.map_fd("answers"), self._sample, None, None,
            doing="read DNS answers",
        )  # fmt: skip

    def take(self, most: int) -> list[Answer]:
        """Those that came since the last call, in order, at most `most`; the others stay."""
        self._taken, self._most = [], most
        libbpf.call("ring_buffer__consume", self._ring, doing="read DNS answers", accept=(_ENOUGH,))
        epoch = boot_ns()
        return [_read(record, epoch) for record in self._taken]

    def close(self) -> None:
        """Let go of the ring buffer; what is in it is lost."""
        libbpf.close_ring(self._ring)

    def _keep(self, _context: int | None, address: int, length: int) -> int:
        self._taken.append(ctypes.string_at(address, length))
        return -_ENOUGH if len(self._taken) == self._most else 0


def _read(record: bytes, epoch: int) -> Answer:
    resolver, client, at_ns, port, length = _FRAME.unpack_from(record)
    message = record[_FRAME.size : _FRAME.size + length]
    return Answer(at_ns + epoch, Address(resolver), Address(client), port, message)
