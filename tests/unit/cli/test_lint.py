"""`ringfence lint` of files: what nobody need be warned of, and what is empty."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ringfence.cli.lint import app

INVENTORY = """
kind: Inventory
from: 2030-01-01T00:00:00Z
to: 2030-01-02T00:00:00Z
items:
  - {kind: pod, namespace: shop, name: db-1, addresses: [10.0.0.1], owner: StatefulSet/db}
  - {kind: pod, namespace: shop, name: report-1, addresses: [10.0.0.2], owner: KIND/report,
     from: 2030-01-01T02:00:00Z, to: 2030-01-01T02:01:00Z}
"""
POLICIES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: all}
spec:
  scope: all
  catchAll: {inbound: DENY, outbound: DENY}
  policies:
    - id: report-to-db
      action: ALLOW
      consumer: {filter: 'kubernetes.owner.name = "report"'}
      provider: {filter: 'kubernetes.owner.name = "db"'}
      protocol: TCP
      ports: [5432]
"""


def lint(folder: Path, policies: str, *, owner: str = "CronJob") -> Result:
    inventory, file = folder / "inventory.yaml", folder / "all.yaml"
    inventory.write_text(INVENTORY.replace("KIND", owner))
    file.write_text(policies)
    return CliRunner().invoke(app, [str(file), "--inventory", str(inventory)])


def test_a_cron_job_between_two_runs_is_somebody(tmp_path: Path) -> None:
    done = lint(tmp_path, POLICIES)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing is odd\n")
    done = lint(tmp_path, POLICIES, owner="Deployment")
    assert done.exit_code == 2
    assert "it matches no workload" in done.stdout


@pytest.mark.parametrize("text", ["", "\n", "# later\n\n"])
def test_a_file_with_nothing_in_it_is_told_of(text: str, tmp_path: Path) -> None:
    done = lint(tmp_path, text)
    assert done.exit_code == 2
    assert f"{tmp_path / 'all.yaml'}: there is nothing in it\n" in done.stderr
    assert "nothing is odd" not in done.stderr
