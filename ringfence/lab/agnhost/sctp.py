"""Stands in for SCTP (RFC 9260) where the kernel has none: as much of it as opens an association.

Words and answers are those of agnhost: `porter` answers an INIT at each port that its environment
names with an INIT ACK; `connect --protocol=sctp --timeout=1s ADDRESS:PORT` sends INITs until one is
answered. The packets are real, on raw sockets: firewalls and connection tracking see SCTP.
"""

import os
import secrets
import socket
import struct
import sys
import time
from contextlib import suppress

_PROTOCOL = 132
_INIT, _INIT_ACK = 1, 2
_CHUNK_AT = 12  # bytes of the common header
_RETRY = 0.3  # seconds between two INITs
_CASTAGNOLI = 0x82F63B78
_ENVIRONMENT = "SERVE_SCTP_PORT_"


def crc32c(data: bytes) -> int:
    """Checksum of a packet whose own is zero."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def packet(source: int, target: int, verification_tag: int, chunk: bytes) -> bytes:
    """A packet of one chunk, without IP header."""
    ports = struct.pack("!HHI", source, target, verification_tag)
    return ports + struct.pack("<I", crc32c(ports + bytes(4) + chunk)) + chunk


def init(kind: int, parameters: bytes = b"") -> bytes:
    """The chunk INIT or INIT ACK."""
    tag, tsn = secrets.randbits(32) or 1, secrets.randbits(32)
    fixed = struct.pack("!IIHHI", tag, 1 << 16, 1, 1, tsn)
    return struct.pack("!BBH", kind, 0, 4 + len(fixed) + len(parameters)) + fixed + parameters


def raw() -> socket.socket:
    """All SCTP that comes in, IPv4 headers included."""
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, _PROTOCOL)


def receive(of: socket.socket) -> tuple[str, int, int, int, int]:
    """Sender, its port, our port, kind of the first chunk and tag that it gives."""
    data, (address, _) = of.recvfrom(65536)
    data = data[4 * (data[0] & 15) :]
    if len(data) < _CHUNK_AT + 8:
        return address, 0, 0, -1, 0
    source, target = struct.unpack_from("!HH", data)
    (tag,) = struct.unpack_from("!I", data, _CHUNK_AT + 4)
    return address, source, target, data[_CHUNK_AT], tag


def serve(ports: set[int]) -> None:
    """Answer for ever."""
    cookie = struct.pack("!HH4s", 7, 8, b"none")  # State Cookie, which nobody will echo
    with raw() as one:
        while True:
            address, source, target, kind, tag = receive(one)
            if kind == _INIT and target in ports:
                one.sendto(packet(target, source, tag, init(_INIT_ACK, cookie)), (address, 0))


def connect(address: str, port: int, seconds: float) -> bool:
    """Whether an INIT was answered in time."""
    own, deadline = 32768 + secrets.randbelow(28232), time.monotonic() + seconds
    asked = packet(own, port, 0, init(_INIT))
    with raw() as one:
        one.connect((address, 0))
        while (left := deadline - time.monotonic()) > 0:
            with suppress(OSError):  # dropped on its way out, or nobody there yet
                one.send(asked)
            again = time.monotonic() + min(_RETRY, left)
            while (wait := again - time.monotonic()) > 0:
                one.settimeout(wait)
                try:
                    _, source, target, kind, _ = receive(one)
                except OSError:
                    continue
                if (source, target, kind) == (port, own, _INIT_ACK):
                    return True
    return False


def main() -> str | None:
    """Do what the words say; the error if that fails."""
    if sys.argv[1] == "porter":
        names = [name for name in os.environ if name.startswith(_ENVIRONMENT)]
        serve({int(name.removeprefix(_ENVIRONMENT)) for name in names})
    options = dict(word[2:].split("=", 1) for word in sys.argv[2:] if word.startswith("--"))
    (target,) = (word for word in sys.argv[2:] if not word.startswith("--"))
    address, _, port = target.rpartition(":")
    if connect(address, int(port), float(options["timeout"].removesuffix("s"))):
        return None
    return "TIMEOUT"


if __name__ == "__main__":
    sys.exit(main())
