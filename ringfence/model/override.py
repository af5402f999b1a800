"""The refusals of the control plane that a person may override, each by its word."""

from enum import StrEnum


class Override(StrEnum):
    """What to do although it is refused."""

    PROBES = "probes"
    """Cut kubelet probes off."""
