"""What can go wrong at the kernel's door."""

from ringfence.model.errors import RingfenceError


class KernelError(RingfenceError):
    """The kernel, or a tool or library needed to talk to it, refused or is missing."""


class NamespaceError(KernelError):
    """A network namespace could not be entered: it is gone, or a capability is missing."""


class BpfError(KernelError):
    """A BPF object could not be built, found, loaded, attached or read."""


class NetlinkError(KernelError):
    """The kernel answered a netlink request with an error."""

    def __init__(self, message: str, code: int = 0) -> None:
        """`code` is the kernel's errno, 0 if there is none."""
        super().__init__(message)
        self.code = code
