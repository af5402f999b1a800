"""`ringfence capture`: what the agents' flow program makes of packets, without an agent."""

import mmap
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ringfence.cli.files import unreadable
from ringfence.cli.flows.columns import two_way
from ringfence.cli.output import (
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    human_bytes,
    say,
)
from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.flows.pcap import Bytes, CaptureFileError, read_frames
from ringfence.kernel.bpf import object_path
from ringfence.kernel.replay import Records, Replay, Replayed
from ringfence.kernel.tunnel import MAX_DECODE_AS, DecodeAs, Tunnel
from ringfence.model.address import Address, format_address, is_v4
from ringfence.model.errors import InputError
from ringfence.model.protocol import (
    DCCP,
    ICMP,
    ICMPV6,
    TCP,
    UDPLITE,
    WITH_PORTS,
    format_protocol,
)

app = typer.Typer(no_args_is_help=True, add_completion=False)

_LAYERS = ("outer", "inner")
_MALFORMED = (
    "truncated", "bad_header", "bad_length", "overlong",
    "inner_truncated", "inner_bad_header", "inner_bad_length",
)  # fmt: skip
_WITH_PORTS = WITH_PORTS | {DCCP, UDPLITE}
_FLAGS = "FSRPAUECN"  # from the lowest bit, RFC 9293 section 3.1; N is AE, once NS
_PORT_MAX = 65535
_IPV6 = 6


def _both(row: Row, name: str) -> str:
    forward, reverse = row["forward"][name], row["reverse"][name]
    if name == "bytes":
        return f"{human_bytes(forward)} / {human_bytes(reverse)}"
    return f"{forward} / {reverse}" if forward or reverse else ""


def _port(end: str, name: str) -> Column:
    """The port of an end; in a table it stands beside the end, CSV has each heading once."""

    def text(row: Row) -> object:
        return row[name]

    return Column("PORT", text, right=True, csv={f"{end} PORT": text})


_ONE_WAY = [
    Column("LAYER", lambda row: row["layer"]),
    Column("PROTOCOL", lambda row: format_protocol(row["proto"])),
    Column("SOURCE", lambda row: row["src"]),
    _port("SOURCE", "sport"),
    Column("DESTINATION", lambda row: row["dst"]),
    _port("DESTINATION", "dport"),
    Column("PACKETS", lambda row: row["packets"], right=True),
    Column("BYTES", lambda row: row["ip_bytes"], right=True),
    Column("FLAGS", lambda row: _letters(row.get("tcp_flags_or", 0))),
]
_TWO_WAY = [
    Column("LAYER", lambda row: row["layer"]),
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("PROTOCOL", lambda row: format_protocol(row["proto"])),
    Column("PORT", lambda row: row.get("icmp_type_code", row["port"]), right=True),
    two_way("bytes", _both),
    two_way("packets", _both),
    Column("FLAGS", lambda row: _both(row, "flags")),
    Column("OPENED", lambda row: row["opened"], right=True),
    Column("ANSWERED", lambda row: row["answered"], right=True, wide=True),
    Column("REFUSED", lambda row: row["refused"], right=True, wide=True),
    Column("DIRECTION BY", lambda row: row["method"]),
]
_RTT = ("rtt_samples", "rtt_sum_ns", "rtt_min_ns")


@app.callback()
def _capture() -> None:
    """Run the agents' flow program on packets of one's own."""


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A pcap or pcapng file; - is stdin.")],
    decode_as: Annotated[
        list[str] | None,
        typer.Option(
            help="A tunnel on a port of its own: udp.port==N,vxlan, or …,vxlan_gpe, geneve, gre, "
            "gtp, teredo."
        ),
    ] = None,
    flows: Annotated[
        bool, typer.Option("--flows", help="Print two-way flows, from consumer to provider.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Feed a capture file to the flow program, and print the flows that it saw. Needs root.

    `outer` are the flows of the first IP header of each frame, `inner` those of the last where a
    tunnel brought more than one.

    Example: ringfence capture replay trace.pcap --decode-as udp.port==8472,vxlan
    """
    replayed, error = _replay(file, [_decode_as(text) for text in decode_as or []])
    if error and not replayed.frames:
        raise CaptureFileError(f"{file}: {error}") from error
    layers = {
        layer: replayed.records[replayed.records["inner"] == inner]
        for inner, layer in enumerate(_LAYERS)
    }
    rows = _two_way if flows else _one_way
    tables = {layer: rows(records) for layer, records in layers.items()}
    if output in (Format.JSON, Format.YAML, Format.JSONL):
        emit_data({**_summary(replayed), **tables}, output)
    else:
        if output in (Format.TABLE, Format.WIDE):
            _print_summary(_summary(replayed))
        flat = [{"layer": layer, **row} for layer in _LAYERS for row in tables[layer]]
        emit(flat, _TWO_WAY if flows else _ONE_WAY, output, empty="no IP packets")
    if error:
        message = f"{file}: {error}; the {replayed.frames} frames before it are counted"
        raise CaptureFileError(message) from error


def _decode_as(text: str) -> DecodeAs:
    field, _, rest = text.replace(" ", "").partition("==")
    port, _, tunnel = rest.partition(",")
    known = {tunnel.name.lower(): tunnel for tunnel in Tunnel}
    right = field == "udp.port" and port.isdecimal() and 0 < int(port) <= _PORT_MAX
    if not right or tunnel not in known:
        raise InputError(
            f"--decode-as {text!r} is not understood: write udp.port==N,TUNNEL with a port and "
            f"one of {', '.join(known)}"
        )
    return DecodeAs(int(port), known[tunnel])


def _replay(path: Path, decode_as: list[DecodeAs]) -> tuple[Replayed, CaptureFileError | None]:
    """What became of the frames; and the error that ended the file early, if one did."""
    if len(decode_as) > MAX_DECODE_AS:
        raise InputError(f"at most {MAX_DECODE_AS} --decode-as can be given")
    file = _map(path)
    replay = Replay(object_path("flow"), decode_as)
    try:
        error = _feed(replay, file)
        if replay.result().audit["unplaced"]:  # a later fragment may come before its first
            replay.forget()
            error = _feed(replay, file)
        return replay.result(), error
    finally:
        replay.close()


def _feed(replay: Replay, file: Bytes) -> CaptureFileError | None:
    try:
        for frame in read_frames(file):
            replay.feed(frame)
    except CaptureFileError as error:
        return error
    return None


def _map(path: Path) -> Bytes:
    try:
        with Path("/dev/stdin" if str(path) == "-" else path).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not status.st_size:
                return file.read()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise unreadable(path, error) from error


def _summary(replayed: Replayed) -> dict[str, Any]:
    return {
        "frames": replayed.frames,
        "frame_bytes": replayed.frame_bytes,
        "truncated_frames": replayed.truncated_frames,
        "non_ip": replayed.audit["non_ip"],
        "malformed": {reason: replayed.audit[reason] for reason in _MALFORMED},
        "unplaced_fragments": replayed.audit["unplaced"],
        "unknown_link_types": {
            str(number): frames for number, frames in sorted(replayed.unknown_link_types.items())
        },
    }


def _print_summary(summary: dict[str, Any]) -> None:
    counts = {
        "captured in part": summary["truncated_frames"],
        "not IP": summary["non_ip"],
        **{reason.replace("_", " "): count for reason, count in summary["malformed"].items()},
        "later fragments without a first one": summary["unplaced_fragments"],
        **{
            f"link type {number}, which is not read": frames
            for number, frames in summary["unknown_link_types"].items()
        },
    }
    told = "".join(f"  {name} {count}" for name, count in counts.items() if count)
    say(f"frames {summary['frames']} ({human_bytes(summary['frame_bytes'])}){told}")


def _one_way(records: Records) -> list[Row]:
    """Rows by (proto, src, sport, dst, dport); of ICMP the types and codes stand inside a row."""
    rows: dict[tuple[Any, ...], Row] = {}
    kinds: dict[tuple[Any, ...], Counter[str]] = {}
    for record in records:
        proto, sport, dport = (int(record[name]) for name in ("protocol", "sport", "dport"))
        src, dst = (_address(record[end], record["family"]) for end in ("src", "dst"))
        known = proto in _WITH_PORTS and not record["unplaced"]
        ports = (sport, dport) if known else (None, None)
        key = (proto, src, ports[0], dst, ports[1])
        row = rows.setdefault(
            key,
            {
                "proto": proto, "src": src, "sport": ports[0], "dst": dst, "dport": ports[1],
                "packets": 0, "ip_bytes": 0,
            },
        )  # fmt: skip
        row["packets"] += int(record["packets"])
        row["ip_bytes"] += int(record["bytes"])
        if proto == TCP:
            row["tcp_flags_or"] = row.get("tcp_flags_or", 0) | int(record["tcp_flags"])
        if proto in (ICMP, ICMPV6):
            kinds.setdefault(key, Counter())[f"{sport}/{dport}"] += int(record["packets"])
    for key, counts in kinds.items():
        rows[key]["icmp_type_code"] = dict(counts)
    return sorted(rows.values(), key=lambda row: -row["packets"])


def _two_way(records: Records) -> list[Row]:
    nobody = Listening(
        np.empty(0, np.uint8), np.empty((0, 16), np.uint8), np.empty(0, np.uint16)
    )  # fmt: skip
    columns = conversations(
        records, np.empty(0, np.uint32), nobody, frozenset(), Orientations(len(records))
    ).columns()
    return [
        {
            "proto": int(columns["protocol"][i]),
            "consumer": _address(columns["consumer"][i]),
            "provider": _address(columns["provider"][i]),
            **_service(int(columns["protocol"][i]), int(columns["provider_port"][i])),
            **{way: _way(columns, way, i) for way in ("forward", "reverse")},
            **{name: int(columns[name][i]) for name in ("opened", "answered", "refused")},
            **{name: int(columns[name][i]) for name in _RTT},
            "method": str(columns["method"][i]),
            "first_ns": int(columns["first_ns"][i]),
            "last_ns": int(columns["last_ns"][i]),
        }
        for i in range(len(columns["protocol"]))
    ]


def _service(proto: int, port: int) -> Row:
    if proto in (ICMP, ICMPV6):
        return {"port": None, "icmp_type_code": f"{port >> 8}/{port & 0xFF}"}
    return {"port": port if proto in _WITH_PORTS else None}


def _way(columns: dict[str, Any], way: str, row: int) -> Row:
    return {
        "packets": int(columns[f"{way}_packets"][row]),
        "bytes": int(columns[f"{way}_bytes"][row]),
        "flags": _letters(int(columns[f"{way}_flags"][row])),
        **{
            name: int(columns[f"{way}_{name}"][row])
            for name in ("syn", "fin", "rst", "retransmitted")
        },
    }


def _address(octets: Any, family: int = 4) -> str:
    """Of an IPv6 packet that has one like IPv4's, in the mixed notation (RFC 5952, section 5)."""
    address = Address(octets.tobytes())
    mapped = family == _IPV6 and is_v4(address)
    return f"::ffff:{format_address(address)}" if mapped else format_address(address)


def _letters(flags: int) -> str:
    return "".join(letter for bit, letter in enumerate(_FLAGS) if flags >> bit & 1)
