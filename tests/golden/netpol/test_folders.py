"""Folders of manifests mean what others' analysis of them says."""

import json
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.explained import restrict
from ringfence.cli.manifests import (
    ConnectivityFormat,
    print_edges,
    print_explanations,
    read_connectivity,
)
from ringfence.policy.errors import PolicyError
from ringfence.policy.kubernetes.connectivity import Edge
from ringfence.policy.kubernetes.difference import changes
from ringfence.policy.kubernetes.explanation import Explainer
from ringfence.policy.kubernetes.focus import Focus, FocusDirection, parse_connection
from tests.golden.netpol.corpora import corpus

CORPUS, with_corpus = corpus("netpol-analyzer")
Case = dict[str, Any]


@cache
def cases(suite: str) -> list[Case]:
    """Those without several networks, of which none but the pods' own is known here."""
    if not CORPUS.exists():
        return []
    listed: list[Case] = json.loads((CORPUS / "cases.json").read_bytes())
    return [
        one for one in listed if one["suite"] == suite and not one["flags"]["multiple_networks"]
    ]


def expected(case: Case) -> str:
    return Path(CORPUS, case["expected_file"]).read_text()


def edges(case: Case) -> list[Edge]:
    flags = case["flags"]
    connection = parse_connection(flags["focus_conn"]) if flags["focus_conn"] else None
    read = read_connectivity(CORPUS / case["dir"], connection)
    direction = FocusDirection(flags["focus_direction"]) if flags["focus_direction"] else None
    focus = Focus(tuple(flags["focusworkload"]), tuple(flags["focusworkload_peer"]), direction)
    return list(focus.select(read.edges(), read.workloads))


def lines(found: list[Edge]) -> set[str]:
    return {f"{one.source} => {one.target} : {one.connections}" for one in found}


@with_corpus
def test_connections() -> None:
    differ = []
    for case in cases("connlist"):
        found, text = edges(case), expected(case)
        if case["format"] == "json":
            wanted = {(one["src"], one["dst"], one["conn"]) for one in json.loads(text)}
            same = wanted == {(one.source, one.target, one.connections) for one in found}
        else:
            same = set(text.splitlines()) - {""} == lines(found)
        if not same:
            differ.append(case["name"])
    assert differ == []


@with_corpus
@pytest.mark.parametrize("suite", ["explain", "explain_exposure"])
def test_explanations(suite: str) -> None:
    differ = []
    for case in cases(suite):
        with redirect_stdout(StringIO()) as printed:
            read = read_connectivity(CORPUS / case["dir"], exposure=case["flags"]["exposure"])
            explained = restrict(map(Explainer(read).explain, read.pairs()), None)
            report = read.exposure() if case["flags"]["exposure"] else None
            print_explanations(explained, ConnectivityFormat.TXT, report)
        if printed.getvalue().strip("\n") != expected(case).strip("\n"):
            differ.append(case["name"])
    assert cases(suite)
    assert differ == []


@with_corpus
def test_differences() -> None:
    differ = []
    for case in cases("diff"):
        old, new = (read_connectivity(CORPUS / case[folder]) for folder in ("dir", "dir2"))
        wanted = set(expected(case).splitlines()) - {"", "Connectivity diff:"}
        if wanted != {one.line for one in changes(old, new)}:
            differ.append(case["name"])
    assert differ == []


@with_corpus
@pytest.mark.parametrize("case", cases("fatal"), ids=lambda case: Path(case["dir"]).name)
def test_refusals(case: Case) -> None:
    with pytest.raises(PolicyError):
        read_connectivity(CORPUS / case["dir"])


@with_corpus
def test_exposure() -> None:
    listed = cases("exposure")
    differ = [case["name"] for case in listed if told_of_exposure(case) != wanted_of_it(case)]
    assert listed
    assert differ == []


def told_of_exposure(case: Case) -> set[str]:
    """What is printed, one blank for many; JSON's exposures as lines of text."""
    with redirect_stdout(StringIO()) as printed:
        read = read_connectivity(CORPUS / case["dir"], exposure=True)
        focus = Focus(tuple(case["flags"]["focusworkload"]))
        report = focus.expose(read.exposure(), read.workloads)
        form = ConnectivityFormat(case["format"])
        print_edges(list(focus.select(read.edges(), read.workloads)), form, report)
    return as_lines(case, printed.getvalue())


def wanted_of_it(case: Case) -> set[str]:
    return as_lines(case, expected(case))


def as_lines(case: Case, text: str) -> set[str]:
    if case["format"] == "txt":
        return {" ".join(line.split()) for line in text.splitlines()}
    told = json.loads(text)
    listed = {"connections": told["connlist_results"], **told["exposure_results"]}
    return {f"{part} {json.dumps(one)}" for part, ones in listed.items() for one in ones or ()}
