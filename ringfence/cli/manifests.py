"""Folders of manifests for `ringfence netpol`, and how their connectivity is printed."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from ringfence.cli.explained import dot as explained_dot
from ringfence.cli.explained import rows as explained_rows
from ringfence.cli.explained import text as explained_text
from ringfence.cli.files import FileError, unreadable
from ringfence.cli.flows.drawing import dot_quoted
from ringfence.cli.output import Format, Row, emit_data, emit_text, printable, tell
from ringfence.model.errors import InputError
from ringfence.model.policy import Direction
from ringfence.model.protocol import PortRange
from ringfence.model.words import named
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes.cluster import Cluster
from ringfence.policy.kubernetes.connectivity import Connectivity, Edge
from ringfence.policy.kubernetes.documents import Folder
from ringfence.policy.kubernetes.explanation import Explanation
from ringfence.policy.kubernetes.exposure import (
    ExposureReport,
    Representatives,
    representatives,
)
from ringfence.policy.kubernetes.ingress import published
from ringfence.policy.kubernetes.manifests import read_policies
from ringfence.policy.kubernetes.topology import read_topology
from ringfence.policy.kubernetes.unread import unread_fields

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class ConnectivityFormat(StrEnum):
    """The forms of -o."""

    TXT = "txt"
    JSON = "json"
    DOT = "dot"


def manifest_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a folder, and the folders in it, that may have manifests.

    Raises FileError.
    """
    if not directory.is_dir():
        absent = not directory.exists()
        raise FileError(f"no folder {directory}" if absent else f"{directory} is not a folder")
    for file in sorted(directory.rglob("*")):
        if file.suffix.lower() in _SUFFIXES and file.is_file():
            try:
                yield str(file.relative_to(directory)), file.read_bytes()
            except OSError as error:
                raise unreadable(file, error) from error


def read_connectivity(
    directory: Path,
    connection: tuple[int, PortRange] | None = None,
    *,
    exposure: bool = False,
) -> Connectivity:
    """What the manifests of a folder and the folders in it permit; warnings go to stderr."""
    folder = Folder()
    for name, content in manifest_files(directory):
        folder.add(name, content)
    if not any(one.kind for one in folder.manifests):
        raise InputError(f"{directory}: expected .yaml, .yml or .json files with objects in them")
    folder.warnings += [
        f"{one.refusal(FieldError('apiVersion', 'is not read here'))}; passed over"
        for one in folder.manifests
        if one.is_unread_policy
    ]
    folder.warnings += [
        str(one.refusal(FieldError(named(unread), f"no field of {one.kind}, so not read")))
        for one in folder.manifests
        if one.is_policy and (unread := list(unread_fields(one.object)))
    ]
    policies = read_policies(folder.manifests)
    topology = read_topology(folder.manifests)
    served = published(folder.manifests, topology)
    for warning in dict.fromkeys([*folder.warnings, *topology.warnings]):
        tell(f"warning: {warning}")
    spaces, workloads = topology.namespaces, topology.workloads
    beside = Representatives()
    if exposure:
        pods = (pod for pods in workloads.values() for pod in pods)
        beside = representatives(policies, Cluster(spaces, pods))
    read = Connectivity(spaces, workloads, policies, served, beside, connection)
    blocked = (
        f"{workload.display}: is published, and policies deny connections from pods of which "
        "nothing is known, as ingress controllers are here; not shown"
        for workload in read.blocked()
    )
    ties = (
        f"{', '.join(names)}: have one priority; which comes first is not defined, and here "
        "it is the order of their names"
        for names in read.layer.ties
    )
    for warning in (*blocked, *ties):
        tell(f"warning: {warning}")
    return read


def print_edges(
    edges: Sequence[Edge],
    form: ConnectivityFormat,
    report: ExposureReport | None = None,
    focus: str = "",
) -> None:
    """Print edges to stdout, and what the workloads are exposed to.

    With `focus`, the connections that all of them are, these are told once.
    """
    match form:
        case ConnectivityFormat.JSON:
            _print_data([_object(*one, focus=focus) for one in sorted(edges)], report, focus)
        case ConnectivityFormat.DOT:
            _print_lines(_dot(sorted(edges)))
        case ConnectivityFormat.TXT:
            lines = [
                f"{source} => {target}" + ("" if focus else f" : {text}")
                for source, target, text in edges
            ]
            title = [f"Permitted connections on {focus}:"] if focus else []
            _print_text([*title, *sorted(lines)], report, focus)


def print_explanations(
    explained: Sequence[Explanation],
    form: ConnectivityFormat,
    report: ExposureReport | None = None,
    focus: str = "",
) -> None:
    """Print to stdout why connections are allowed or denied, and what the workloads expose."""
    match form:
        case ConnectivityFormat.JSON:
            _print_data(explained_rows(explained), report, focus)
        case ConnectivityFormat.DOT:
            _print_lines(explained_dot(explained))
        case ConnectivityFormat.TXT:
            _print_text(list(explained_text(explained)), report, focus)


def _print_data(told: list[Row], report: ExposureReport | None, focus: str) -> None:
    if report is None:
        emit_data(told, Format.JSON)
        return
    kind = "conn_focus_results" if focus else "results"
    whole = {f"connlist_{kind}": told, f"exposure_{kind}": _exposures(report, focus)}
    emit_data(whole, Format.JSON)


def _print_text(lines: list[str], report: ExposureReport | None, focus: str) -> None:
    if report is not None:
        lines = [*lines, *([""] if lines else []), *_report(report, focus)]
    _print_lines(lines)


def _print_lines(lines: Iterable[str]) -> None:
    # At once: there may be a million of them.
    emit_text("".join(f"{printable(line)}\n" for line in lines))


def _object(source: str, target: str, connections: str, *, focus: str) -> Row:
    ends = {"src": source, "dst": target}
    return ends if focus else {**ends, "conn": connections}


def _exposures(report: ExposureReport, focus: str) -> Row:
    listed = report.exposures
    return {
        "egress_exposure": [
            _object(one.workload, one.peer, one.connections, focus=focus)
            for one in listed[Direction.OUTBOUND]
        ],
        "ingress_exposure": [
            _object(one.peer, one.workload, one.connections, focus=focus)
            for one in listed[Direction.INBOUND]
        ],
    }


def _report(report: ExposureReport, focus: str) -> Iterator[str]:
    yield f"Exposure Analysis Result On {focus}:" if focus else "Exposure Analysis Result:"
    sections = []
    names = [one.workload for told in report.exposures.values() for one in told]
    width = max(map(len, names), default=0)
    for word, direction, arrow in (
        ("Egress", Direction.OUTBOUND, "=>"),
        ("Ingress", Direction.INBOUND, "<="),
    ):
        told = report.exposures[direction]
        lines = sorted(
            f"{printable(one.workload):<{width}} \t{arrow} \t"
            + printable(one.peer)
            + ("" if focus else f" : {one.connections}")
            for one in told
        )
        sections += [[f"{word} Exposure:", *lines]] if lines else []
    words = {Direction.OUTBOUND: "Egress", Direction.INBOUND: "Ingress"}
    open_ends = sorted(
        f"{printable(name)} is not protected on {words[direction]}"
        for name, direction in report.unprotected
    )
    if open_ends and not focus:
        sections.append(["Workloads not protected by network policies:", *open_ends])
    for number, section in enumerate(sections):
        yield from ["", *section] if number else section


def _dot(edges: Iterable[Edge]) -> Iterator[str]:
    yield "digraph connectivity {"
    for one in edges:
        label = dot_quoted(one.connections)
        yield f"  {dot_quoted(one.source)} -> {dot_quoted(one.target)} [label={label}];"
    yield "}"
