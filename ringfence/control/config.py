"""What an operator may choose about the control plane."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.export.url import ExportUrl
from ringfence.model.address import Network
from ringfence.model.errors import InputError
from ringfence.store.flows.tables import Retention


@dataclass(frozen=True, slots=True)
class Listen:
    """An address and a TCP port to listen on; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """As people write it, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Read `127.0.0.1:8443` or `[::1]:8443`; raises InputError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise InputError(f"{text!r}: write ADDRESS:PORT, such as 0.0.0.0:8443") from error
    if not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004
        raise InputError(f"{text!r}: {port!r} is not a port")
    return Listen(host, int(port))


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """How to run a control plane.

    `advertise` are the names and addresses by which clients reach it. Without `database_url`
    people's decisions are kept in the data directory; it may hold a password. `ssh_networks` may
    always open SSH to nodes, whatever is enforced. URLs of address sets may lead to public
    addresses and to `fetch_networks`. Without `clickhouse_url`, which may hold a password too, what
    agents observe is kept in the data directory, by an engine within this process that takes
    `flow_memory_mib` at most. `clickhouse_cluster` names a cluster of that server's to keep it on.
    `retention` says for how long. Conversations go to each of `exports`.
    """

    data_dir: Path
    http_listen: Listen = Listen("127.0.0.1", 8443)
    grpc_listen: Listen = Listen("127.0.0.1", 8444)
    advertise: tuple[str, ...] = ()
    database_url: str | None = field(default=None, repr=False)
    admin_token_file: Path | None = None
    ssh_networks: tuple[Network, ...] = ()
    report_interval_seconds: int = 15
    clickhouse_url: str | None = field(default=None, repr=False)
    clickhouse_cluster: str = ""
    flow_memory_mib: int = 2048
    retention: Retention = field(default_factory=Retention)
    fetch_networks: tuple[Network, ...] = ()
    exports: tuple[ExportUrl, ...] = ()
