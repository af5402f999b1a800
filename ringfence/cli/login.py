"""`ringfence login`: which control plane the other commands talk to."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import Client, Context, save_context
from ringfence.cli.files import unreadable
from ringfence.cli.output import tell
from ringfence.model.errors import InputError

app = typer.Typer(add_completion=False)


@app.command()
def login(
    server: Annotated[str, typer.Argument(help="Such as https://ringfence.example.com:8443")],
    token_file: Annotated[Path, typer.Option(help="File that holds the token.")],
    ca: Annotated[Path, typer.Option(help="The control plane's CA certificate (PEM).")],
) -> None:
    """Check a token and keep it with the control plane's address for the other commands.

    Example: ringfence login https://127.0.0.1:8443 --token-file admin.token --ca ca.pem
    """
    if not server.startswith("https://"):
        raise InputError(f"{server!r} does not begin with https://; write https://HOST:PORT")
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(token_file, error) from error
    context = Context(server, token, str(ca.resolve()))
    identity = Client(context).get("/whoami")
    path = save_context(context)
    tell(f"{server}: you are {identity['actor']}; kept in {path}")
