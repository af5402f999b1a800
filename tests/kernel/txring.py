"""The fastest sender without a module of its own: frames in a ring that the kernel sends from.

See Documentation/networking/packet_mmap.rst. The frames stay in place, so that sending them all
again costs one system call.
"""

import mmap
import socket
import struct

import numpy as np

from tests.kernel.netns import Namespace

SOL_PACKET, PACKET_VERSION, PACKET_TX_RING = 263, 10, 13
TPACKET_V2 = 1
HEADER = 32  # struct tpacket2_hdr, aligned: where a frame's bytes begin
SLOT, BLOCK = 128, 1 << 16
AVAILABLE, SEND_REQUEST = 0, 1


class TxRing:
    """Frames of equal length, at most 96 bytes, ready to leave by a device."""

    def __init__(self, where: Namespace, device: str, frames: list[bytes]) -> None:
        """`frames` fill whole blocks: their number is a multiple of 512."""
        blocks, rest = divmod(len(frames) * SLOT, BLOCK)
        assert not rest
        kind = socket.SOCK_RAW
        self._socket = where.call(lambda: socket.socket(socket.AF_PACKET, kind, 0))
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        request = struct.pack("IIII", BLOCK, blocks, SLOT, len(frames))
        self._socket.setsockopt(SOL_PACKET, PACKET_TX_RING, request)
        where.call(lambda: self._socket.bind((device, 0)))
        self._memory = mmap.mmap(self._socket.fileno(), blocks * BLOCK)
        for slot, frame in enumerate(frames):
            start = slot * SLOT
            struct.pack_into("II", self._memory, start, AVAILABLE, len(frame))
            self._memory[start + HEADER : start + HEADER + len(frame)] = frame
        self._status = np.frombuffer(self._memory, np.uint32)[:: SLOT // 4]
        self._bytes = len(frames) * len(frames[0])

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._status)

    def send(self) -> None:
        """Send every frame once; returns when the last one was consumed."""
        self._status[:] = SEND_REQUEST
        assert self._socket.send(b"") == self._bytes
        assert not self._status.any()

    def close(self) -> None:
        del self._status
        self._memory.close()
        self._socket.close()
