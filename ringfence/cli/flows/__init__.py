"""`ringfence flows`: who talked to whom, and who tried."""

import typer

from ringfence.cli.flows.export import export
from ringfence.cli.flows.groups import graph, top
from ringfence.cli.flows.listing import denied, list_flows
from ringfence.cli.flows.related import related
from ringfence.cli.flows.watch import watch

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("list")(list_flows)
app.command("denied")(denied)
app.command("top")(top)
app.command("graph")(graph)
app.command("export")(export)
app.command("watch")(watch)
app.command("related")(related)
