"""The entry point. Commands are imported when they run, so that the command starts quickly."""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer._click import Context
from typer._click.exceptions import ClickException
from typer._click.formatting import HelpFormatter
from typer.core import TyperGroup

from ringfence import __version__
from ringfence.cli.output import say, tell
from ringfence.model.errors import InputError, RingfenceError

# Exit codes, as scripts rely on them.
OK, FAILED, FOUND, USAGE, UNAUTHENTICATED = range(5)

# Command: (module of ringfence.cli that holds its `app`, what the list of commands says of it).
COMMANDS = {
    "login": ("login", "Keep the address and token of a control plane for the other commands."),
    "inventory": (
        "inventory",
        "List pods, nodes, Services and others; export them with their history.",
    ),
    "labels": ("labels", "Say what addresses outside Kubernetes are: names and labels."),
    "agents": ("agents", "Show each agent, what it enforces and what it lost."),
    "flows": ("flows", "Search who talked to whom."),
    "scopes": ("scopes", "Show the scope tree; print a scope design to start from."),
    "address-sets": ("address_sets", "Upload, refresh and show lists of addresses of policies."),
    "apply": ("apply", "Make scopes and workspaces as the YAML files say."),
    "diff": ("diff", "Show what apply would change, or what differs between two versions."),
    "rollback": ("rollback", "Make what a workspace once said its latest version again."),
    "delete": ("delete", "Delete scopes, named filters, address sets and workspaces."),
    "fmt": ("fmt", "Rewrite YAML files in canonical form."),
    "schema": ("schema", "Print the JSON Schema of policies or of an inventory, for editors."),
    "lint": (
        "lint",
        "Find policies that are shadowed, too broad, unused, expired or of nobody.",
    ),
    "get": ("get", "Show workspaces, their versions and policies; named filters; address sets."),
    "export": ("export", "Print scopes and workspaces as YAML."),
    "discover": ("discover", "Propose the policies that the observed flows need."),
    "recommendations": (
        "recommendations",
        "Watch scopes, and have policies recommended that they lack or need no more.",
    ),
    "coverage": ("coverage", "Say whether what was seen of a scope is enough to decide by."),
    "analyze": ("analyze", "Hold a policy version against live traffic without enforcing it."),
    "analysis": ("analysis", "Hold versions against all that arrives; count what they say."),
    "experiment": ("experiment", "Hold a policy version against the flows of a past time."),
    "experiments": ("experiments", "List experiments and what came of them."),
    "promote": ("promote", "Lead a scope on: observe, discover, analyse, staged, enforced."),
    "promotion": ("promotion", "Show how far scopes are, and set what they have to meet."),
    "alerts": ("alerts", "List alerts of what is enforced, and say who is to hear of them."),
    "requests": ("requests", "Approve or reject what policies need of other scopes' workspaces."),
    "enforce": ("enforce", "Enforce workspaces, or stop with --off."),
    "confirm": ("confirm", "Keep what is enforced on trial."),
    "revert": ("revert", "Go back from what is enforced on trial to what was before."),
    "quarantine": ("quarantine", "Cut a workload off at once; list and lift quarantines."),
    "why": ("why", "Name the policy that decides a connection at each end."),
    "rules": ("rules", "List the rules of a workload, beside the policies they came from."),
    "reach": ("reach", "List what a workload can reach, and what can reach it."),
    "netpol": ("netpol", "Evaluate Kubernetes' policies: of clusters, folders, recorded cases."),
    "changes": ("changes", "List who changed what, and when."),
    "tokens": (
        "tokens",
        "Make and revoke tokens: of administrators, and to enrol agents and connectors.",
    ),
    "capture": ("capture", "Run the flow program on a capture file."),
    "server": ("server", "Run the control plane."),
    "agent": ("agent", "Run the agent of a node."),
    "connector": ("connector", "Run the connector of a Kubernetes cluster."),
    "demo": ("demo", "Show the whole job on a lab cluster, from nothing to enforced policies."),
    "lab": ("lab", "A real Kubernetes cluster on this machine, with a shop in it."),
}


class LazyGroup(TyperGroup):
    """Knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Any:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        app: typer.Typer = importlib.import_module(f"ringfence.cli.{module}").app
        command = typer.main.get_command(app)
        _exemplify(command)
        command.name = cmd_name
        command.short_help = summary
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _exemplify(command: Any) -> str:
    """Show the first example of its commands below a group's own help; gives it."""
    if not isinstance(command, TyperGroup):
        _, _, example = (command.help or "").partition("Example: ")
        return example.partition("\n")[0]
    found = [_exemplify(one) for one in command.commands.values()]
    example = next(filter(None, found), "")
    command.epilog = command.epilog or f"Example: {example}"
    return example


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"ringfence {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the release."
        ),
    ] = False,
) -> None:
    """Ringfence: see every connection in and around Kubernetes, and allow just those you need.

    Exit codes: 0 fine; 1 error, also in a file or in the cluster's state; 2 differences or
    findings; 3 usage: a command, option or argument that means nothing; 4 authentication.
    """


def _say(error: RingfenceError) -> None:
    for line in f"error: {error}".split("\n"):
        tell(line)


def main() -> None:
    """Run the command line; every expected failure is one line on stderr and an exit code."""
    from ringfence.cli.client import UnauthenticatedError  # noqa: PLC0415

    code: int | None = FAILED
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except ClickException as error:
        error.message = error.message.removeprefix("Value error, ")  # Pydantic's, of choices
        error.show()
        code = USAGE
    except (typer.Abort, KeyboardInterrupt):
        tell("stopped")
    except UnauthenticatedError as error:
        _say(error)
        code = UNAUTHENTICATED
    except InputError as error:
        _say(error)
        code = USAGE
    except RingfenceError as error:
        _say(error)
    except BrokenPipeError:
        sys.stderr.close()
    sys.exit(code if isinstance(code, int) else OK)


if __name__ == "__main__":
    main()
