"""Flows as rows of a table."""

from collections.abc import Callable

from ringfence.cli.output import Column, Row, human_bytes
from ringfence.model.protocol import format_port, parse_protocol

_WAYS = ("forward", "reverse")
_RTT = ("min_ns", "mean_ns")
_MARKS = {"connection": "", "hop": "  └ ", "tunnel": "  └ in "}


def end_name(end: Row) -> str:
    """The name of a flow's end, else its name in DNS, and its address; the address for neither."""
    name, address = end.get("name") or end.get("dns_name"), end["address"]
    return f"{name} ({address})" if name not in {None, "", address} else str(address)


def end_cells(end: str) -> dict[str, Callable[[Row], object]]:
    """The columns of CSV that tell an end: its name, namespace and address, each by itself."""

    def of(key: str) -> Callable[[Row], object]:
        return lambda row: row[end].get(key)

    heading = end.upper()
    return {
        heading: lambda row: row[end].get("name") or row[end].get("dns_name"),
        f"{heading} NAMESPACE": of("namespace"),
        f"{heading} ADDRESS": of("address"),
    }


def _level(row: Row) -> str:
    """What a row of `with_related` is; the packets of hops and tunnels are the connection's."""
    return str(row.get("level", "connection"))


def process_name(end: Row) -> str:
    """The process at a flow's end, empty where it is not known."""
    process = end.get("process")
    if not process:
        return ""
    inside = f" in {process['container']}" if process["container"] else ""
    return f"{process['name']}[{process['pid']}]{inside}"


def port(row: Row) -> str:
    """A flow's port, or ICMP's type and code."""
    return format_port(parse_protocol(row["protocol"]), row["port"])


def provider_name(row: Row) -> str:
    """The provider, and the Service behind which it stands."""
    service = row.get("service")
    name = end_name(row["provider"])
    return f"{name} via {service['name']}" if service and service["name"] not in name else name


def _labels(end: str) -> Callable[[Row], str]:
    """What an end is besides what Kubernetes calls it."""
    return lambda row: " ".join(
        f"{key}={','.join(values)}" for key, values in row[end]["labels"].items()
    )


def _flags(row: Row) -> str:
    forward, reverse = ("".join(flag[0] for flag in row[way]["flags"]) for way in _WAYS)
    return f"{forward}/{reverse}" if forward or reverse else ""


def _rtt(row: Row) -> str:
    """The least and the mean time from SYN to SYN-ACK."""
    rtt = row["rtt"]
    return " / ".join(f"{rtt[name] / 1e6:.2f} ms" for name in _RTT) if rtt else ""


def _rtt_of(name: str) -> Callable[[Row], object]:
    return lambda row: row["rtt"] and row["rtt"][name]


def both(row: Row, count: str) -> str:
    """A count of both ways, bytes for people."""
    forward, reverse = row["forward"][count], row["reverse"][count]
    if count == "bytes":
        return f"{human_bytes(forward)} / {human_bytes(reverse)}"
    return f"{forward} / {reverse}"


def _of_tcp(row: Row, count: str) -> str:
    return both(row, count) if row["protocol"] == "TCP" else ""


def two_way(count: str, text: Callable[[Row, str], str] = both, *, wide: bool = False) -> Column:
    """The column of a count of both ways; of CSV two."""

    def of(way: str) -> Callable[[Row], object]:
        return lambda row: row[way][count]

    heading = count.upper()
    csv = {f"{way.upper()} {heading}": of(way) for way in _WAYS}
    return Column(heading, lambda row: text(row, count), wide, right=True, csv=csv)


FLOW_COLUMNS = [
    Column(
        "CONSUMER",
        lambda row: _MARKS[_level(row)] + end_name(row["consumer"]),
        csv={"LEVEL": _level, **end_cells("consumer")},
    ),
    Column(
        "PROVIDER",
        provider_name,
        csv={**end_cells("provider"), "SERVICE": lambda row: (row["service"] or {}).get("name")},
    ),
    Column("PROTOCOL", lambda row: row["protocol"]),
    Column("PORT", port, right=True),
    Column("CONSUMER PROCESS", lambda row: process_name(row["consumer"]), wide=True),
    Column("PROVIDER PROCESS", lambda row: process_name(row["provider"]), wide=True),
    two_way("bytes"),
    two_way("packets"),
    Column("FLAGS", _flags),
    Column("OPENED", lambda row: row["opened"], right=True),
    Column("ANSWERED", lambda row: row["answered"], right=True, wide=True),
    Column("REFUSED", lambda row: row["refused"], right=True, wide=True),
    Column("DROPPED", lambda row: row["dropped"], right=True, wide=True),
    Column("DNS NAME", lambda row: row["provider"]["dns_name"], wide=True),
    Column("CARRIES", lambda row: row["carries"] or "", right=True, wide=True),
    two_way("syn", _of_tcp, wide=True),
    two_way("fin", _of_tcp, wide=True),
    two_way("rst", _of_tcp, wide=True),
    two_way("retransmitted", _of_tcp, wide=True),
    Column(
        "RTT MIN / MEAN",
        _rtt,
        right=True,
        wide=True,
        csv={f"RTT {name.upper().replace('_', ' ')}": _rtt_of(name) for name in _RTT},
    ),
    Column("CONSUMER LABELS", _labels("consumer"), wide=True),
    Column("PROVIDER LABELS", _labels("provider"), wide=True),
    Column("DIRECTION BY", lambda row: row["method"]),
    Column("DISPOSITION", lambda row: row["disposition"]),
    Column("FIRST", lambda row: row["first"], wide=True),
    Column("LAST", lambda row: row["last"], wide=True),
    Column("CONNECTION", lambda row: row["connection"], wide=True),
]


def with_related(rows: list[Row]) -> list[Row]:
    """Each flow, and under it, with their `level`, its related records: other hops, and tunnels."""
    spread: list[Row] = []
    for row in rows:
        spread.append(row)
        for hop in row.get("related") or []:
            level = "tunnel" if hop["carries"] else "hop"
            spread.append({**row, "service": None, **hop, "level": level})
    return spread
