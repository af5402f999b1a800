"""The refusals of the control plane that a person may override, each by its word."""

from enum import StrEnum


class Override(StrEnum):
    """What to do although it is refused."""

    PROBES = "probes"
    """Cut kubelet probes off."""
    NODE = "node"
    """Quarantine a node or host, of which only the fail-safes are left."""
    CONTROL_PLANE = "control-plane"
    """Quarantine the workload at whose address the control plane is reached."""
