"""A rolling update of the agents: no connection that passes meanwhile is missed or told twice."""

import json
import subprocess
from datetime import UTC, datetime

from ringfence.lab.config import LabConfig
from ringfence.lab.shop.manifests import UNUSED_NODE_PORT
from tests.e2e.cluster import COMMAND, Lab, ringfence, until

CONFIG = LabConfig()
EXTERNAL = str(CONFIG.external.address)
NODES = [str(spec.address) for spec in CONFIG.node_specs]
DIAL_UNTIL_TOLD = f"""
import itertools, select, socket, sys
for count, node in enumerate(itertools.cycle({NODES})):
    if select.select([sys.stdin], [], [], 0.02)[0]:
        break
    socket.create_connection((node, {UNUSED_NODE_PORT}), 5).close()
print(count)
"""


def test_agents_that_are_replaced_count_every_connection_once(installed: Lab) -> None:
    since = datetime.now(UTC).isoformat()
    dialling = [COMMAND, "lab", "exec", "external", "--", "python3", "-c", DIAL_UNTIL_TOLD]
    agents = ("-n", "ringfence", "daemonset/agent")
    with subprocess.Popen(
        dialling, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as dialler:
        installed.kubectl("rollout", "restart", *agents)
        installed.kubectl("rollout", "status", *agents, "--timeout=120s")
        told, _ = dialler.communicate("enough\n", 30)
    dialled = int(told)

    def opened() -> int:
        query = f'consumer.address = "{EXTERNAL}" and port = {UNUSED_NODE_PORT}'
        words = ("flows", "list", "--since", since, "--filter", query, "-o", "json")
        return sum(flow["opened"] for flow in json.loads(ringfence(*words)))

    until("all of them are told", lambda: opened() >= dialled, 60)
    assert opened() == dialled > 100
