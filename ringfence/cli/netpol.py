"""`ringfence netpol`: what the policies of Kubernetes mean, with no cluster."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.output import Column, Format, OutputOption, Row, emit
from ringfence.model.errors import InputError
from ringfence.policy.kubernetes.cases import Answer, Step, answer, read_cases

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _netpol() -> None:
    """Evaluate NetworkPolicy and ClusterNetworkPolicy without a cluster."""


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
                        typer.echo(_difference(step, one), err=True)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: not a case: {error!r}") from error
    emit(rows, [Column(name.upper(), _text(name)) for name in _FIELDS], output)
    typer.echo(f"{len(rows)} verdicts, {differences} differ", err=True)
    raise typer.Exit(2 if differences else 0)


_FIELDS = ("case", "step", "from", "to", "protocol", "port", "ingress", "egress", "allowed")


def _text(name: str) -> Any:
    return lambda row: row[name]


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
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
