"""Verdicts on Kubernetes' policies agree with those that others recorded."""

import json
from pathlib import Path

from ringfence.policy.kubernetes.cases import answer, read_cases
from tests.golden.netpol.corpora import corpus

CYCLONUS, with_cyclonus = corpus("cyclonus")
CONFORMANCE, with_conformance = corpus("network-policy-api")


def verdicts(file: Path, cluster: Path | None = None) -> int:
    """The number of verdicts, all of which are as expected."""
    steps = read_cases(
        file.name,
        json.loads(file.read_bytes()),
        cluster and json.loads(cluster.read_bytes()),
    )
    answers = [one for step in steps for one in answer(step)]
    assert [one for one in answers if one.reasons] == []
    return len(answers)


@with_cyclonus
def test_conversations() -> None:
    files = sorted((CYCLONUS / "cases").glob("*.json"))
    assert sum(map(verdicts, files)) > 500 * len(files)


@with_conformance
def test_conformance() -> None:
    assert verdicts(CONFORMANCE / "cases.json", CONFORMANCE / "cluster.json") > 100
