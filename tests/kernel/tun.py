"""TUN devices: interfaces whose packets, bare IP ones, a test reads and writes itself."""

import fcntl
import io
import struct

_SET_INTERFACE = 0x400454CA  # TUNSETIFF
_TUN_WITHOUT_HEADER = 0x1001  # IFF_TUN | IFF_NO_PI


def open_tun(name: str) -> io.FileIO:
    """The device of that name in the calling thread's namespace, made if there is none."""
    device = io.FileIO("/dev/net/tun", "r+")
    fcntl.ioctl(device, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    return device
