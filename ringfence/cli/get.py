"""`ringfence get`: workspaces, and the policies of one."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit

app = typer.Typer(add_completion=False)

WORKSPACE_COLUMNS = [
    Column("WORKSPACE", lambda row: row["name"]),
    Column("SCOPE", lambda row: row["scope"]),
    Column("PRIMARY", lambda row: "yes" if row["primary"] else "no"),
    Column("VERSION", lambda row: f"p{row['version']}"),
    Column("ENFORCED", lambda row: f"p{row['enforced']}" if row.get("enforced") else "no"),
    Column("POLICIES", lambda row: row["policies"], right=True),
    Column("CATCH-ALL IN/OUT", lambda row: "/".join(row["catch_all"].values())),
]


def _ports(row: Row) -> str:
    ports = ",".join(row.get("ports") or row.get("icmp") or [])
    return f"{row['protocol']} {ports}".strip()


POLICY_COLUMNS = [
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


@app.command()
def get(
    workspace: Annotated[str | None, typer.Argument(help="Show this one's policies.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="An older version.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """List workspaces, or the policies of one in the order they are read.

    Example: ringfence get sock-shop
    """
    client = connect()
    if workspace is None:
        emit(client.get("/workspaces")["items"], WORKSPACE_COLUMNS, output, "no workspace yet")
    else:
        answer = client.get(f"/workspaces/{workspace}", version=version)
        emit(answer["policies"], POLICY_COLUMNS, output, "the workspace has no policy")
