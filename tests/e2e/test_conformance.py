"""A few of Kubernetes' own NetworkPolicy specs; `make conformance` runs them all."""

import json

import pytest

from tests.e2e.cluster import Lab, ringfence, run

FOCUS = "'default-deny-all'|updated namespace|except clause"


@pytest.mark.timeout(900)  # they may have to be built
def test_kubernetes_own_specs_pass(installed: Lab) -> None:
    ringfence("netpol", "enforce", "--cluster", "lab", "--yes")
    try:
        done = run("lab", "conformance", "--focus", FOCUS, "-o", "json")
    finally:
        ringfence("netpol", "enforce", "--cluster", "lab", "--off", "--yes")
    specs = json.loads(done.stdout)
    assert len(specs) == 3, done.stderr
    assert [spec for spec in specs if spec["failure"]] == []
    assert done.returncode == 0
