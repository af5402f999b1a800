"""A staged trial that drops what analysis could not foresee is taken back."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.lab.config import LabConfig
from ringfence.lab.kubectl import apply
from tests.e2e.cluster import Lab, ringfence, run, until
from tests.e2e.probe import PORT, SERVER, PodNetwork, network_of, pod

WORKSPACE = f"""
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {{name: lab}}
spec: {{query: everything}}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {{name: staged}}
spec: {{parent: lab, query: 'kubernetes.namespace = "staged"'}}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {{name: staged}}
spec:
  scope: staged
  catchAll: {{inbound: DENY, outbound: ALLOW}}
  clusters:
    - {{name: servers, query: 'kubernetes.label.app = "server"'}}
    - {{name: friends, query: 'kubernetes.label.role = "friend"'}}
  policies:
    - id: friends-to-servers
      action: ALLOW
      consumer: {{cluster: friends}}
      provider: {{cluster: servers}}
      protocol: TCP
      ports: [{PORT}]
"""
PODS = [
    pod("server", "staged", "node1", {"app": "server"}, ("python3", "-c", SERVER)),
    pod("caller", "staged", "node2", {"role": "friend"}),
]
TRIAL_S = 60  # three reporting intervals and some


@pytest.fixture
def caller(installed: Lab, tmp_path: Path) -> Iterator[PodNetwork]:
    """A pod that the policy lets reach the server, as its label is now."""
    installed.kubectl("create", "namespace", "staged")
    apply(LabConfig(), PODS)
    installed.kubectl("wait", "--for=condition=Ready", "pod", "--all", "-n", "staged")
    file = tmp_path / "staged.yaml"
    file.write_text(WORKSPACE)
    ringfence("apply", "--yes", "-f", str(file))
    yield network_of(installed, "caller", "staged")
    ringfence("enforce", "--off", "--yes")
    installed.kubectl("delete", "namespace", "staged")


def test_a_stage_that_drops_unforeseen_is_taken_back(installed: Lab, caller: PodNetwork) -> None:
    """The caller loses its label after the plan was made, and with it what it had before."""
    server = network_of(installed, "server", "staged").address
    told = ("flows", "list", "--filter", f'provider.address = "{server}"', "-o", "json")
    asked = ("--stage", "node1", "--for", f"{TRIAL_S}s", "--threshold", "1%", "--yes")
    with caller.dialling(server) as probe, ThreadPoolExecutor() as pool:
        until("it is reported", lambda: bool(json.loads(ringfence(*told))), 45)
        trial = pool.submit(run, "enforce", "staged", *asked)
        until("it is on trial", lambda: "on trial" in run("enforce").stderr)
        installed.kubectl("label", "pod", "-n", "staged", "caller", "role=foe", "--overwrite")
        ended = trial.result(TRIAL_S + 15)
        until("nothing is enforced", lambda: caller.reaches(server), 15)
    assert ended.returncode == 2, ended
    assert "dropped unforeseen: " in ended.stderr, ended
    assert "caller to " in ended.stderr, ended
    assert [through for _, through in probe.told][:3] == [True, False, True], probe
