"""Folders of manifests for `ringfence netpol`, and how their connectivity is printed."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import typer

from ringfence.cli.flows.drawing import dot_quoted
from ringfence.cli.output import Format, emit_data, printable
from ringfence.model.errors import InputError
from ringfence.model.protocol import PortRange
from ringfence.policy.kubernetes.connectivity import Connectivity, Edge
from ringfence.policy.kubernetes.documents import Folder
from ringfence.policy.kubernetes.ingress import published
from ringfence.policy.kubernetes.manifests import read_policies
from ringfence.policy.kubernetes.topology import read_topology

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class ConnectivityFormat(StrEnum):
    """The forms of -o."""

    TXT = "txt"
    JSON = "json"
    DOT = "dot"


def read_connectivity(
    directory: Path, connection: tuple[int, PortRange] | None = None
) -> Connectivity:
    """What the manifests of a folder and the folders in it permit; warnings go to stderr."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a folder")
    folder = Folder()
    for file in sorted(directory.rglob("*")):
        if file.suffix.lower() in _SUFFIXES and file.is_file():
            try:
                folder.add(str(file.relative_to(directory)), file.read_bytes())
            except OSError as error:
                raise InputError(f"{file}: {error.strerror}") from error
    policies = read_policies(folder.manifests)
    topology = read_topology(folder.manifests)
    served = published(folder.manifests, topology)
    for warning in dict.fromkeys([*folder.warnings, *topology.warnings]):
        typer.echo(f"warning: {printable(warning)}", err=True)
    return Connectivity(topology.namespaces, topology.workloads, policies, served, connection)


def print_edges(edges: Iterable[Edge], form: ConnectivityFormat) -> None:
    """Print edges to stdout."""
    if form is ConnectivityFormat.JSON:
        emit_data(
            [{"src": one.source, "dst": one.target, "conn": one.connections} for one in edges],
            Format.JSON,
        )
        return
    lines = (
        _dot(edges)
        if form is ConnectivityFormat.DOT
        else sorted(f"{one.source} => {one.target} : {one.connections}" for one in edges)
    )
    for line in lines:
        sys.stdout.write(printable(line) + "\n")


def _dot(edges: Iterable[Edge]) -> Iterator[str]:
    yield "digraph connectivity {"
    for one in edges:
        label = dot_quoted(one.connections)
        yield f"  {dot_quoted(one.source)} -> {dot_quoted(one.target)} [label={label}];"
    yield "}"
