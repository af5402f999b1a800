"""Flows as the API shows them: ends with their names at the time, hops of a connection together."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from pydantic import BaseModel, Field

from ringfence.control.times import format_time
from ringfence.flows.connections import ServiceSockets
from ringfence.inventory.outside import labels_of
from ringfence.inventory.snapshot import NOWHERE
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address
from ringfence.model.flow import TCP_FLAGS, format_connection
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.labels import ADDRESS_TYPE, USER_PREFIX
from ringfence.model.protocol import format_protocol
from ringfence.model.workload import Item, ItemKind
from ringfence.store.flows.filter import ENDS
from ringfence.store.flows.queries import TUNNEL_COLUMNS

Row = dict[str, Any]
"""One hop as `store.flows.queries.HOPS` has it."""

_OWN = ("protocol", "consumer", "provider", "provider_port")


class ProcessView(BaseModel):
    """The process that holds an end's socket; of several the one with the lowest PID."""

    name: str = Field(description="Of up to 15 bytes, as the process chose it.")
    pid: int = Field(description="As its node sees it.")
    container: str = Field(description="Its name in the pod; empty outside of one.")


class EndView(BaseModel):
    """One end of a flow; empty is what is not known, as where nobody holds the address."""

    address: str
    name: str = ""
    kind: str = ""
    namespace: str = ""
    owner: str = ""
    key: str = ""
    process: ProcessView | None = Field(default=None, description="Null where it is not known.")
    dns_name: str = Field(default="", description="Of a provider: as what the consumer found it.")
    labels: dict[str, list[str]] = Field(
        default_factory=dict,
        description="What is known besides Kubernetes: address.type, and uploaded user.KEY.",
    )


class ServiceView(BaseModel):
    """A Service through which a connection was made."""

    namespace: str
    name: str
    key: str


class WayView(BaseModel):
    """One way's packets, bytes from the IP header on, and what TCP showed."""

    packets: int
    bytes: int
    flags: list[str]
    syn: int = Field(description="Packets with this flag, repeated ones too.")
    fin: int
    rst: int
    retransmitted: int = Field(description="TCP segments that were sent again.")


class RttView(BaseModel):
    """From SYN to SYN-ACK where the observer stood, of handshakes whose SYN was sent once."""

    samples: int
    min_ns: int
    mean_ns: int


class HopView(BaseModel):
    """One tuple on the wire."""

    consumer: EndView
    provider: EndView
    protocol: str
    port: int
    consumer_ports: list[int] = Field(
        description="Some of the consumer's; none where agents folded them."
    )
    method: str
    forward: WayView
    reverse: WayView
    opened: int
    answered: int
    refused: int
    dropped: int = Field(description="Packets that were reported dropped.")
    carries: int = Field(description="Of a tunnel: how many conversations were seen inside it.")
    rtt: RttView | None = Field(description="Null where no handshake was measured.")
    first: str
    last: str


class FlowView(HopView):
    """A connection as its consumer sees it, the other hops that it became, and their tunnels."""

    connection: str = Field(description="Its id, which a filter may name.")
    service: ServiceView | None = None
    disposition: str
    related: list[HopView]


def item_of(timeline: Timeline, revision: int) -> Item | None:
    """The item of an inventory revision; None for 0, nobody, and for one that is not kept."""
    try:
        return timeline.revision(RevisionId(revision))[0] if revision else None
    except KeyError:
        return None


def received_at(timeline: Timeline, dialled: int, told_by: str) -> str:
    """The node that received a connection for a Service: the one dialled, else who told of it.

    `dialled` is an inventory revision.
    """
    item = item_of(timeline, dialled)
    return item.name if item and item.kind is ItemKind.NODE else told_by


def end_view(
    item: Item | None,
    address: Address,
    process: ProcessView | None,
    dns_name: str,
    *,
    api_server: bool,
) -> EndView:
    """An end that the item held, or nobody; `api_server` if one answered there."""
    labels = {
        key: list(values)
        for key, values in labels_of(item, address, api_server=api_server).items()
        if key == ADDRESS_TYPE or key.startswith(USER_PREFIX)
    }
    return EndView(
        address=format_address(address),
        name=item.name if item else "",
        kind=item.kind if item else "",
        namespace=item.namespace if item else "",
        owner=item.workload_name if item else "",
        key=item.key if item else "",
        process=process,
        labels=labels,
        dns_name=dns_name,
    )


def pod_name(timeline: Timeline, cluster: ClusterId, uid: str) -> str:
    """The pod's namespace and name, its uid once it is gone."""
    snapshot = timeline.latest()
    at = snapshot.position(item_key(cluster, ItemKind.POD, uid))
    return uid if at == NOWHERE else snapshot.items[at].display


class Views:
    """Renders hops, looking names up as of the flow's own time."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._services = ServiceSockets(timeline.latest())
        self._api_servers = timeline.api_servers()

    def flows(
        self, rows: Iterable[Row], dispositions: Mapping[int, str], tunnels: Iterable[Row]
    ) -> list[FlowView]:
        """Connections out of their hops, which stand together, each with its disposition.

        `tunnels` are the hops of the tunnels that carry them.
        """
        known = {_tuple(row, _OWN): row for row in tunnels}
        grouped = groupby(rows, key=lambda row: row["connection"])
        return [self._flow(list(hops), dispositions[one], known) for one, hops in grouped]

    def record(self, row: Row, dropped: int, disposition: str) -> FlowView:
        """A connection from its first consumer to its last provider."""
        view = self.hop(row)
        consumer = self.end(row, "first_consumer", process_view(row, "consumer"))
        fields = {**dict(view), "consumer": consumer, "dropped": dropped}
        return FlowView(
            **fields,
            connection=format_connection(row["connection"]),
            service=self._service(row),
            disposition=disposition,
            related=[],
        )

    def hop(self, row: Row) -> HopView:
        """One hop."""
        consumer, provider = (self.end(row, end, process_view(row, end)) for end in ENDS)
        return HopView(
            consumer=consumer,
            provider=provider,
            protocol=format_protocol(row["protocol"]),
            port=row["provider_port"],
            consumer_ports=sorted(row["consumer_ports"]),
            method=row["method"],
            forward=way_view(row, "forward"),
            reverse=way_view(row, "reverse"),
            opened=row["opened"],
            answered=row["answered"],
            refused=row["refused"],
            dropped=row["dropped"],
            carries=row["carries"],
            rtt=_rtt(row),
            first=format_time(row["first_ns"]),
            last=format_time(row["last_ns"]),
        )

    def end(self, row: Row, column: str, process: ProcessView | None = None) -> EndView:
        """Who held the address in a column; its revision is in the row, cluster and last time."""
        address = Address(row[column])
        item = item_of(self._timeline, row[f"{column}_revision"])
        api_server = self._api_servers.answered(row["kubernetes_cluster"], address, row["last_ns"])
        # A drop report has no name; what was dialled is known by the provider's.
        dns_name = "" if column.endswith("consumer") else row.get("provider_dns_name", "")
        return end_view(item, address, process, dns_name, api_server=api_server)

    def _flow(
        self, hops: list[Row], disposition: str, tunnels: Mapping[tuple[Any, ...], Row]
    ) -> FlowView:
        hops.sort(key=lambda row: (_translated(row), row["first_ns"], row["provider"]))
        first, *others = hops
        dropped = sum(row["dropped"] for row in hops)
        through = dict.fromkeys(_tuple(row, TUNNEL_COLUMNS) for row in hops)
        others += [tunnels[tunnel] for tunnel in through if tunnel in tunnels]
        return FlowView(
            **{**dict(self.hop(first)), "dropped": dropped},
            connection=format_connection(first["connection"]),
            service=self._service(first),
            disposition=disposition,
            related=[self.hop(row) for row in others],
        )

    def service(
        self, revision: int, dialled: bytes, protocol: int, port: int, home: ClusterId
    ) -> Item | None:
        """The Service that was dialled from a Kubernetes cluster, None where none was."""
        item = item_of(self._timeline, revision)
        if item is None or item.kind is not ItemKind.SERVICE:
            item = self._services.at(dialled, protocol, port, home)
        return item

    def _service(self, row: Row) -> ServiceView | None:
        dialled = row["dialled"], row["protocol"], row["dialled_port"]
        item = self.service(row["dialled_revision"], *dialled, row["kubernetes_cluster"])
        if item is None:
            return None
        return ServiceView(namespace=item.namespace, name=item.name, key=item.key)


def _tuple(row: Row, columns: Iterable[str]) -> tuple[Any, ...]:
    return (row["kubernetes_cluster"], *(row[name] for name in columns))


def _translated(row: Row) -> bool:
    own = (row["consumer"], row["provider"], row["provider_port"])
    return own != (row["first_consumer"], row["dialled"], row["dialled_port"])


def process_view(row: Row, end: str) -> ProcessView | None:
    """The process at an end of a row."""
    pid = row[f"{end}_pid"]
    if not pid:
        return None
    return ProcessView(name=row[f"{end}_process"], pid=pid, container=row[f"{end}_container"])


def way_view(row: Row, way: str) -> WayView:
    """One way of a row."""
    flags = row[f"{way}_flags"]
    return WayView(
        packets=row[f"{way}_packets"],
        bytes=row[f"{way}_bytes"],
        flags=[name for bit, name in enumerate(TCP_FLAGS) if flags >> bit & 1],
        **{name: row[f"{way}_{name}"] for name in ("syn", "fin", "rst", "retransmitted")},
    )


def _rtt(row: Row) -> RttView | None:
    samples = row["rtt_samples"]
    if not samples:
        return None
    return RttView(samples=samples, min_ns=row["rtt_min_ns"], mean_ns=row["rtt_sum_ns"] // samples)
