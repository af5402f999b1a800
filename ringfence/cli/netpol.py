"""`ringfence netpol`: what the policies of Kubernetes mean, in folders and in clusters."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import ApiError, connect
from ringfence.cli.enforce import (
    ConfirmOption,
    TimeoutOption,
    WaitOption,
    YesOption,
    wait_until_in_force,
)
from ringfence.cli.explained import ExplainOnly, restrict
from ringfence.cli.files import unreadable
from ringfence.cli.manifests import (
    ConnectivityFormat,
    manifest_files,
    print_edges,
    print_explanations,
    read_connectivity,
)
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    say,
    tell,
)
from ringfence.cli.trial import tell_trial, trial_body
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.words import counted, named
from ringfence.policy.errors import FieldError, PolicyError
from ringfence.policy.kubernetes.cases import Answer, Step, answer, read_cases
from ringfence.policy.kubernetes.difference import changes
from ringfence.policy.kubernetes.explanation import Explainer
from ringfence.policy.kubernetes.focus import Focus, FocusDirection, parse_connection

app = typer.Typer(add_completion=False, no_args_is_help=True)


DirOption = Annotated[
    Path, typer.Option("--dir", help="A folder of manifests; folders in it are read too.")
]
ConnectivityOption = Annotated[
    ConnectivityFormat, typer.Option("--output", "-o", help="How to print the result.")
]


class DiffFormat(StrEnum):
    """The forms of -o of a difference."""

    TXT = "txt"
    JSON = "json"


@app.callback()
def _netpol() -> None:
    """Evaluate NetworkPolicy and ClusterNetworkPolicy, of folders with no cluster needed."""


@app.command()
def check(
    case: Annotated[
        list[Path],
        typer.Option(help="A case of cyclonus, or cases of network-policy-api."),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Run recorded cases; exit code 2 if a verdict differs from the expected one.

    Differences are listed on stderr with the policies that decide. A file of network-policy-api
    needs its cluster.json beside it.

    Example: ringfence netpol check --case cases/001.json -o json
    """
    rows: list[Row] = []
    differences = 0
    for file in case:
        beside = file.parent / "cluster.json"
        cluster = _load(beside) if beside.exists() else None
        try:
            for step in read_cases(file.name, _load(file), cluster):
                for one in answer(step):
                    rows.append(_row(step, one))
                    if one.reasons:
                        differences += 1
                        tell(_difference(step, one))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise PolicyError(f"{file}: not a case: {error!r}") from error
        except FieldError as error:
            raise PolicyError(f"{file}: {error}") from error
    emit(rows, [Column(name.upper(), _text(name)) for name in _FIELDS], output)
    tell(f"{len(rows)} verdicts, {differences} differ")
    raise typer.Exit(2 if differences else 0)


@app.command()
def connectivity(  # noqa: PLR0913, PLR0917 - one parameter for each option
    directory: DirOption,
    focus: Annotated[
        list[str], typer.Option(help="Only what touches this workload: name or namespace/name.")
    ] = [],  # noqa: B006
    focus_peer: Annotated[
        list[str], typer.Option(help="Only what is between a workload in focus and this one.")
    ] = [],  # noqa: B006
    focus_direction: Annotated[
        FocusDirection | None, typer.Option(help="Only to, or from, the workloads in focus.")
    ] = None,
    focus_connection: Annotated[
        str, typer.Option(help="Only who may talk on this, such as tcp-80.")
    ] = "",
    exposure: Annotated[
        bool,
        typer.Option("--exposure", help="Tell also who might talk that the folder does not have."),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Tell which policies allow and deny, pair by pair."),
    ] = False,
    explain_only: Annotated[
        ExplainOnly | None, typer.Option(help="Explain allowed, or denied, connections only.")
    ] = None,
    output: ConnectivityOption = ConnectivityFormat.TXT,
) -> None:
    """Print which workloads may talk on which ports, for a folder of manifests.

    Workloads on both sides are pods' owners, `namespace/name[Kind]`; ranges of addresses are
    outside the cluster; {ingress-controller} stands for whatever serves Ingress and Route objects.

    Examples:
      ringfence netpol connectivity --dir manifests/ -o json
      ringfence netpol connectivity --dir manifests/ --focus front-end --explain
    """
    asked = Focus(tuple(focus), tuple(focus_peer), focus_direction)
    connection = parse_connection(focus_connection) if focus_connection else None
    if exposure and (focus_peer or explain_only):
        tell("warning: exposure is not told with --focus-peer or --explain-only")
        exposure = False
    read = read_connectivity(directory, connection, exposure=exposure)
    if unknown := asked.unknown(read.workloads):
        raise PolicyError(f"there is no workload {named(unknown)} in {directory}")
    report = asked.expose(read.exposure(), read.workloads) if exposure else None
    about = read.in_focus if connection else ""
    if explain or explain_only:
        explainer = Explainer(read)
        pairs = asked.select(read.pairs(), read.workloads)
        print_explanations(
            restrict(map(explainer.explain, pairs), explain_only), output, report, about
        )
    else:
        edges = list(asked.select(read.edges(), read.workloads))
        print_edges(edges, output, report, about)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A folder of manifests.")],
    new: Annotated[Path, typer.Argument(help="The folder to compare with it.")],
    output: Annotated[DiffFormat, typer.Option("--output", "-o")] = DiffFormat.TXT,
) -> None:
    """Print what two folders of manifests permit differently; exit code 2 if anything.

    Example: ringfence netpol diff before/ after/
    """
    found = changes(read_connectivity(old), read_connectivity(new))
    if output is DiffFormat.JSON:
        emit_data(
            [
                {
                    "type": one.kind,
                    "source": one.source,
                    "destination": one.target,
                    "before": one.before,
                    "after": one.after,
                    "workloads": list(one.workloads),
                }
                for one in found
            ],
            Format.JSON,
        )
    elif found:
        say("Connectivity diff:")
        for one in found:
            say(one.line)
    raise typer.Exit(2 if found else 0)


@app.command("import")
def import_(
    workspace: Annotated[str, typer.Argument(help="The read-only workspace to keep them as.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="A folder of manifests; folders in it too.")
    ] = None,
    cluster: Annotated[
        str,
        typer.Option(
            help="The Kubernetes cluster that they are of; without --dir, as it has them."
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option(help="Show the changes only.")] = False,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Keep Kubernetes' policies as a version of a read-only workspace, if they changed.

    `analyze`, `why --with`, `reach --with` and `diff` take it as they take any other: it is judged
    beside what is enforced. Of a folder only the policies count, pods are those of the cluster.

    Examples:
      ringfence netpol import cluster-policies --cluster production
      ringfence netpol import proposed --dir manifests/ --cluster production
    """
    if directory is None and not cluster:
        raise typer.BadParameter("write --cluster, --dir, or both")
    asked: dict[str, Any] = {
        "workspace": workspace,
        "kubernetes_cluster": cluster,
        "dry_run": dry_run,
    }
    if directory is not None:
        asked["files"] = [
            {"name": name, "documents": content.decode(errors="replace")}
            for name, content in manifest_files(directory)
        ]
    try:
        answer = connect().post("/imports", asked)
    except InputError as error:  # what is wrong in a file is no mistake in the command
        raise ApiError(str(error)) from error
    for warning in answer["warnings"]:
        tell(f"warning: {warning}")
    if output is not Format.TABLE:
        emit_data(answer, output)
        return
    held = f"{counted(answer['policies'], 'policy', 'policies')} of {answer['kubernetes_cluster']}"
    changes = counted(len(answer["diff"]), "change") if answer["diff"] else "unchanged"
    say(f"Workspace {answer['workspace']} (p{answer['version']}): {held}, {changes}")
    for line in answer["diff"]:
        say(f"  {line}")


@app.command()
def enforce(  # noqa: PLR0913, PLR0917 - one parameter for each option
    cluster: Annotated[str, typer.Option(help="The Kubernetes cluster.")],
    off: Annotated[bool, typer.Option("--off", help="Enforce its policies no more.")] = False,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would change only.")] = False,
    confirm: ConfirmOption = None,
    wait: WaitOption = True,
    timeout: TimeoutOption = 60.0,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Enforce the policies that a Kubernetes cluster has, now and as they change.

    They count beside those of Ringfence: each must allow. Let nobody else, such as the network
    plug-in, enforce them too. Exit code 2 if it is not in force on every node by the end of the
    wait.

    Example: ringfence netpol enforce --cluster production

    ringfence netpol enforce --cluster production --confirm 60s
    """
    if not (yes or dry_run or sys.stdin.isatty()):
        raise InputError(
            "nobody can answer here: pass --yes to go ahead, --dry-run to see the plan"
        )
    asked = {"kubernetes_cluster": cluster, "off": off, **trial_body(confirm)}
    client = connect()
    plan = client.post("/enforcement/kubernetes", {**asked, "dry_run": True})
    if output is Format.TABLE:
        for line in plan["changes"] or ["it is so already"]:
            say(line)
        verb = "is" if len(plan["pods"]) == 1 else "are"
        pods = f"{counted(len(plan['pods']), 'pod')} {verb} denied something"
        say(f"{pods}: {named(plan['pods'])}" if plan["pods"] else pods)
        for warning in plan["warnings"]:
            say(f"note: {warning}")
    else:
        emit_data(plan, output)
    if dry_run:
        return
    if not yes and not typer.confirm("Go ahead?", err=True):
        raise RingfenceError("nothing was changed")
    client.post("/enforcement/kubernetes", asked)
    in_force = not wait or wait_until_in_force(client, timeout)
    tell_trial(client.get("/enforcement"))
    if not in_force:
        raise typer.Exit(2)


_FIELDS = ("case", "step", "from", "to", "protocol", "port", "ingress", "egress", "allowed")


def _text(name: str) -> Any:
    return lambda row: row[name]


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: {error}") from error


def _row(step: Step, one: Answer) -> Row:
    question = one.question
    values = (
        step.case,
        step.number,
        question.source,
        question.target,
        question.protocol,
        question.connection.provider_port,
        one.ingress,
        one.egress,
        one.allowed,
    )
    return dict(zip(_FIELDS, values, strict=True))


def _difference(step: Step, one: Answer) -> str:
    question = one.question
    reasons = "; ".join(
        f"{end.direction}: {decision.action} by {decision.policy or 'no policy'} {decision.rule}"
        for end in (one.reasons.ends if one.reasons else ())
        if (decision := end.deciding)
    )
    return (
        f"{step.case} step {step.number}: {question.source} -> {question.target} "
        f"{question.protocol} {question.connection.provider_port}: "
        f"expected {_word(question.allowed)}, computed {_word(one.allowed)} ({reasons})"
    )


def _word(allowed: bool) -> str:
    return "allowed" if allowed else "denied"
