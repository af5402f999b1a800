"""`ringfence get`: workspaces, their versions, policies; named filters, and address sets."""

from typing import Annotated

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.enforce import tell_quarantined
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, printable, tell
from ringfence.model.ids import parse_version
from ringfence.model.words import named

app = typer.Typer(add_completion=False, no_args_is_help=True)

WORKSPACES = [
    Column("WORKSPACE", lambda row: row["name"]),
    Column("SCOPE", lambda row: row["scope"] or f"Kubernetes cluster {row['kubernetes_cluster']}"),
    Column("PRIMARY", lambda row: "yes" if row["primary"] else "no"),
    Column("VERSION", lambda row: f"p{row['version']}"),
    Column("ENFORCED", lambda row: f"p{row['enforced']}" if row.get("enforced") else "no"),
    Column("POLICIES", lambda row: row["policies"], right=True),
    Column("CATCH-ALL IN/OUT", lambda row: "/".join((row["catch_all"] or {}).values())),
    Column("DENIED BY", lambda row: row["denied"], wide=True),
]


def _ports(row: Row) -> str:
    ports = ",".join(row.get("ports") or row.get("icmp") or [])
    return f"{row['protocol']} {ports}".strip()


POLICIES = [
    Column("POLICY", lambda row: row["id"]),
    Column("RANK", lambda row: row["rank"]),
    Column("PRIORITY", lambda row: row["priority"], right=True),
    Column("ACTION", lambda row: row["action"]),
    Column("CONSUMER", lambda row: row["consumer"]),
    Column("PROVIDER", lambda row: row["provider"]),
    Column("TRAFFIC", _ports),
    Column("OWNER", lambda row: row["owner"], wide=True),
    Column("TICKET", lambda row: row["ticket"], wide=True),
    Column("EXPIRES", lambda row: row.get("expires_at"), wide=True),
    Column("APPROVED", lambda row: "yes" if row["approved"] else "no", wide=True),
    Column("DESCRIPTION", lambda row: row.get("description"), wide=True),
]

KUBERNETES_POLICIES = [
    Column("POLICY", lambda row: row["id"]),
    Column("TIER", lambda row: row["tier"]),
    Column("PRIORITY", lambda row: row["priority"], right=True),
    Column("ISOLATES", lambda row: "/".join(row["isolates"])),
    Column("RULES", lambda row: row["rules"], right=True),
    Column("PROBLEM", lambda row: row.get("problem")),
]


def _mark(name: str) -> Column:
    """Who and when; csv has both apart."""

    def text(row: Row) -> str:
        mark = row[name]
        if not mark:
            return ""
        until = mark.get("until")
        return f"{mark['actor']}, {mark['at']}{f' to {until}' if until else ''}"

    fields = ("actor", "at", "until") if name == "enforced" else ("actor", "at")
    csv = {
        f"{name.upper()} {field.upper()}": lambda row, field=field: (row[name] or {}).get(field)
        for field in fields
    }
    return Column(name.upper(), text, csv=csv)


VERSIONS = [
    Column("VERSION", lambda row: f"p{row['version']}"),
    Column("SCOPE", lambda row: row["scope"], wide=True),
    Column("POLICIES", lambda row: row["policies"], right=True),
    _mark("proposed"),
    _mark("analysed"),
    _mark("enforced"),
]


def _public(row: Row) -> str:
    return "; ".join(f"{one['protocol']} {','.join(one['ports'])}".strip() for one in row["public"])


FILTERS = [
    Column("FILTER", lambda row: row["name"]),
    Column("SCOPE", lambda row: row["scope"]),
    Column("QUERY", lambda row: row["query"]),
    Column("RESTRICTED", lambda row: "yes" if row["restricted"] else "no"),
    Column("PUBLIC", _public, wide=True),
    Column("WORKLOADS", lambda row: row["workloads"], right=True),
]

ADDRESS_SETS = [
    Column("ADDRESS SET", lambda row: row["name"]),
    Column("SOURCE", lambda row: row["source"]),
    Column("EVERY", lambda row: row["every"]),
    Column("RANGES", lambda row: row["ranges"], right=True),
    Column("REFRESHED", lambda row: row.get("refreshed_at")),
    Column("HELD SINCE", lambda row: row.get("held_since"), wide=True),
    Column("TRIED", lambda row: row.get("tried_at"), wide=True),
    Column("PROBLEM", lambda row: row["problem"]),
]


@app.command()
def filters(output: OutputOption = Format.TABLE) -> None:
    """List the named filters, and how many workloads are in each now.

    Example: ringfence get filters
    """
    emit(connect().get("/filters")["items"], FILTERS, output, "no named filter yet")


@app.command("address-sets")
def address_sets(output: OutputOption = Format.TABLE) -> None:
    """List the address sets: when the list of each was last read, and why it could not be since.

    Example: ringfence get address-sets -o wide
    """
    rows = connect().get("/address-sets")["items"]
    emit(rows, ADDRESS_SETS, output, "no address set yet")
    failing = [row["name"] for row in rows if row["problem"]]
    if failing:
        told = printable(named(failing))
        tell(f"warning: not refreshed, and as they were: {told}")


@app.command()
def workspaces(output: OutputOption = Format.TABLE) -> None:
    """List the workspaces: which version is the latest, and which one is enforced.

    Example: ringfence get workspaces
    """
    client = connect()
    emit(client.get("/workspaces")["items"], WORKSPACES, output, "no workspace yet")
    tell_quarantined([one["workload"] for one in client.get("/quarantines")["items"]])


@app.command()
def policies(
    workspace: Annotated[str, typer.Argument(help="A workspace, or workspace@p2 for a version.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """List the policies of a workspace in the order they are read.

    Example: ringfence get policies sock-shop
    """
    name, version = parse_version(workspace)
    answer = connect().get(f"/workspaces/{segment(name)}", version=version)
    if answer["kubernetes_cluster"]:
        rows, columns = answer["kubernetes_policies"], KUBERNETES_POLICIES
    else:
        rows, columns = answer["policies"], POLICIES
    emit(rows, columns, output, "the workspace has no policy")


@app.command()
def versions(
    workspace: Annotated[str, typer.Argument(help="A workspace.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """List the versions of a workspace, the newest first: who proposed, analysed, enforced it.

    Analysed tells the first time, enforced the last one, and until when.

    Example: ringfence get versions sock-shop
    """
    rows = connect().get(f"/workspaces/{segment(workspace)}/versions")["items"]
    emit(rows, VERSIONS, output)
