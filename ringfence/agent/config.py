"""What an agent is told when it starts."""

from dataclasses import dataclass
from pathlib import Path

from ringfence.model.ids import ClusterId, NodeName


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent."""

    server: str
    """Where the control plane's API is, such as https://ringfence.example:8443."""
    ca: Path
    """The only authority (PEM) that is trusted to vouch for the control plane."""
    node: NodeName
    kubernetes_cluster: ClusterId
    """Empty outside Kubernetes."""
    token: str = ""
    """A one-time enrolment token; needed until there is a certificate in `state_directory`."""
    state_directory: Path = Path("/var/lib/ringfence")
    """Holds the certificate, the last policy and the reports not yet delivered."""
    runtime_socket: Path | None = Path("/run/containerd/containerd.sock")
    """The container runtime's socket; None on a host without pods."""
    interval_seconds: int = 15
    """Between reports, until the control plane says otherwise."""
    poll_seconds: float = 1.0
    """Between looks for pods and interfaces that came or went."""
    spool_bytes: int = 256 * 1024 * 1024
    """How much disk undelivered reports may take."""

    @property
    def policy_file(self) -> Path:
        """The last directive, enforced again after a restart without a control plane."""
        return self.state_directory / "directive"

    @property
    def health_file(self) -> Path:
        """Touched on every round; its age is the agent's health."""
        return self.state_directory / "health"
