"""`ringfence export`: scopes and workspaces as YAML for git, or as policies of Kubernetes."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import read_documents
from ringfence.cli.output import emit_text, tell
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.ids import parse_version
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.errors import InexpressibleError
from ringfence.policy.kubernetes.export import Form, Target
from ringfence.policy.kubernetes.export import export as to_kubernetes
from ringfence.policy.kubernetes.writing import manifest

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """The kinds of documents."""

    SCOPE = "Scope"
    FILTER = "Filter"
    ADDRESS_SET = "AddressSet"
    WORKSPACE = "Workspace"


@app.command()
def export(  # noqa: PLR0913, PLR0917 - one parameter for each option
    named: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="This one only; of a workspace NAME@p2, too."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="All kinds if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="The same as an option.")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="An older version of a workspace.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--as", help="As policies of Kubernetes that mean the same to pods."),
    ] = None,
    file: Annotated[
        list[Path],
        typer.Option("--file", "-f", help="With --as: these files in place of the control plane."),
    ] = [],  # noqa: B006
    cluster: Annotated[
        str, typer.Option(help="With --as: the Kubernetes cluster that they are for.")
    ] = "",
    namespace: Annotated[
        list[str], typer.Option(help="With --as: a namespace that the cluster has; name all.")
    ] = [],  # noqa: B006
) -> None:
    """Print what was decided as YAML that `apply` reads, or as Kubernetes' policies.

    With --as the primary workspaces are printed as they are if all of them are enforced. Where one
    of their policies cannot be said so, each such is named on stderr and nothing is printed.

    Examples:
      ringfence export --kind Workspace sock-shop > sock-shop.yaml
      ringfence export --as networkpolicy sock-shop | kubectl diff -f -
      ringfence export --as clusternetworkpolicy -f policies/ --cluster east
    """
    if named is not None:
        if name is not None:
            raise InputError("the name stands there twice: leave --name out")
        name, number = parse_version(named)
        if number is not None and version is not None:
            raise InputError("the version stands there twice: leave --version out")
        version = version if number is None else number
    if version is not None and name is not None and kind is None:
        kind = Kind.WORKSPACE  # nothing else has versions
    if form is None:
        if file or cluster or namespace:
            raise InputError("--file, --cluster and --namespace are for --as")
        answer = connect().get("/export", kind=kind, name=name, version=version)
        emit_text(answer["documents"])
        return
    if kind or version:
        raise InputError("--as prints latest versions of workspaces: leave kind and version out")
    texts = read_documents(file) or [("the control plane", connect().get("/export")["documents"])]
    _print(_joined(texts), name, form, Target(cluster, tuple(namespace)))


def _joined(texts: Iterable[tuple[str, str]]) -> Documents:
    try:
        read = [parse_documents(text, where) for where, text in texts]
    except InputError as error:  # what is wrong in a file is no mistake in the command
        raise RingfenceError(str(error)) from error
    return Documents(
        tuple(scope for one in read for scope in one.scopes),
        tuple(workspace for one in read for workspace in one.workspaces),
        tuple(held for one in read for held in one.filters),
        tuple(held for one in read for held in one.address_sets),
    )


def _print(documents: Documents, name: str | None, form: Form, target: Target) -> None:
    import yaml  # noqa: PLC0415

    chosen = [one for one in documents.workspaces if one.primary and name in (None, one.name)]
    if not chosen:
        raise InputError(f"there is no primary workspace {name!r}" if name else "no workspace")
    found = to_kubernetes(ScopeTree(documents.scopes, documents.filters), chosen, form, target)
    for note in dict.fromkeys(found.notes):
        tell(f"note: {note}")
    if found.refusals:
        for refusal in dict.fromkeys(found.refusals):
            tell(refusal)
        raise InexpressibleError(f"nothing is exported as {form}: see above what cannot be said")
    manifests = list(map(manifest, found.policies))
    yaml.safe_dump_all(manifests, sys.stdout, sort_keys=False)
