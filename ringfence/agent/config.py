"""What an agent is told when it starts."""

from dataclasses import dataclass
from pathlib import Path

from ringfence.agent.mechanisms import Kind
from ringfence.link.identity import LinkConfig


def gate_file(state_dir: Path) -> Path:
    """Where an agent with this state directory keeps its gate."""
    return state_dir / "gate.nft"


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent. The link's `state_dir` holds its state, its `name` is the node's."""

    link: LinkConfig
    runtime_socket: Path | None = Path("/run/containerd/containerd.sock")
    """The container runtime's Unix socket; None on a host without pods."""
    interval_seconds: int = 15
    """Between reports, until the control plane says otherwise."""
    pin_dir: Path = Path("/sys/fs/bpf/ringfence")
    """Where programs and counts outlive the agent, in a BPF file system."""
    backend: Kind = Kind.NFTABLES
    """What to write rules with."""
    dns: bool = False
    """Whether to read answers of DNS servers, for the names of addresses."""
    poll_seconds: float = 1.0
    """Between looks for pods that came or went, and at what the kernel keeps for but a moment."""
    spool_bytes: int = 256 * 1024 * 1024
    """How much disk undelivered reports may take."""

    @property
    def directive_file(self) -> Path:
        """The last directive, in force again after a restart without a control plane."""
        return self.link.state_dir / "directive"

    @property
    def gate_file(self) -> Path:
        """The gate before new pods, as nft commands: for the node to load when it boots."""
        return gate_file(self.link.state_dir)

    @property
    def window_file(self) -> Path:
        """The id of the report that is being made: a successor repeats it under the same."""
        return self.link.state_dir / "window"

    @property
    def spool_dir(self) -> Path:
        """Reports not yet delivered."""
        return self.link.state_dir / "spool"
