"""Rules are right while nodes are booted, runtimes and agents replaced, addresses reused, policies
changed ten times a second, and clocks set.

One connection that a policy allows and two that none does are tried all the while.
"""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import pytest

from ringfence.cli.progress import shown
from ringfence.lab import cluster, images, install, machine, node
from ringfence.lab.config import LabConfig
from ringfence.lab.kubectl import apply
from tests.e2e.cluster import Lab, ringfence, until
from tests.e2e.image import another_release
from tests.e2e.probe import SERVER, WITNESS, PodNetwork, Probe, network_of, pod
from tests.e2e.set_clock import Clocks, set_clocks

CONFIG = LabConfig()
WORKSPACE = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: lab}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: up}
spec: {parent: lab, query: 'kubernetes.namespace = "up"'}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: up}
spec:
  scope: up
  newPods: closed
  catchAll: {inbound: DENY, outbound: DENY}
  clusters:
    - {name: servers, query: 'kubernetes.label.app = "server"'}
    - {name: friends, query: 'kubernetes.label.role = "friend"'}
  policies:
    - id: friends-to-servers
      action: ALLOW
      consumer: {cluster: friends}
      provider: {cluster: servers}
      protocol: TCP
      ports: [7007]
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: strangers}
spec: {parent: lab, query: 'kubernetes.namespace = "elsewhere"'}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: strangers}
spec:
  scope: strangers
  catchAll: {inbound: DENY, outbound: DENY}
"""
DAY = 24 * 3600
ECHO = ("python3", "-c", SERVER)
SERVERS = [
    pod("server", "up", "node1", {"app": "server"}, ECHO),
    pod("open", "elsewhere", "node2", {}, ECHO),
]
CLIENTS = [
    pod("friend", "up", "node2", {"role": "friend"}),
    pod("foe", "up", "node2", {"role": "foe"}),
    pod("changer", "up", "node2", {"role": "foe"}),
    # Governed by nothing, so that the server's end alone decides.
    pod("stranger", "elsewhere", "node2", {"role": "friend"}),
]
NAMESPACES = ("up", "elsewhere")


@dataclass
class Bed:
    """The lab with a server, who may dial it and who may not, and one that everybody may dial."""

    lab: Lab
    control: httpx.Client
    friend: PodNetwork
    foe: PodNetwork
    changer: PodNetwork
    stranger: PodNetwork

    @property
    def server(self) -> str:
        return self.address("server")

    @property
    def open(self) -> str:
        return self.address("open", "elsewhere")

    def address(self, name: str, namespace: str = "up") -> str:
        """Empty while the pod has none."""
        return str(self.lab.get("pod", "-n", namespace, name)["status"].get("podIP", ""))

    def enforce(self, *workspaces: str, **more: Any) -> None:
        wanted = [{"name": name} for name in workspaces]
        body = {"workspaces": wanted, **more}
        self.control.post("/api/v1/enforcement", json=body).raise_for_status()

    def change(self, role: str) -> None:
        self.lab.kubectl("label", "pod", "-n", "up", "changer", f"role={role}", "--overwrite")

    @contextmanager
    def probed(self) -> Iterator[tuple[Probe, Probe]]:
        """The friend dials the server and keeps a connection to it; foe and stranger dial too.

        The denied must not have come through in the end; and whoever may must come through.
        """
        with ExitStack() as stack:
            dialled = stack.enter_context(self.friend.dialling(self.server, patience=2.5))
            held = stack.enter_context(self.friend.dialling("held", self.server, patience=10))
            denied = [
                stack.enter_context(one.dialling(self.server)) for one in (self.foe, self.stranger)
            ]
            yield dialled, held
        self.settled()
        assert all(one.never for one in denied), denied

    def settled(self) -> None:
        """Every agent says that all is in force and proved."""
        until("agents are in sync", in_sync, 60)


def agents() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(ringfence("agents", "-o", "json"))
    return listed


def in_sync() -> bool:
    return all(
        one["connected"]
        and not one["stale_reason"]
        and one["enforced_revision"] == one["desired_revision"] > 0
        and not [name for name in one["pods"]["reasons"] if name.startswith("up/")]
        for one in agents()
    )


def following(address: str, count: int) -> list[str]:
    """Addresses of node1's pods that come next: its CNI hands them out in turn."""
    hosts = list(CONFIG.node_specs[0].pods.hosts())[1:]
    first = hosts.index(IPv4Address(address)) + 1
    return [str(one) for one in (hosts * 2)[first : first + count]]


def start_pods(lab: Lab, *pods: dict[str, Any]) -> None:
    apply(CONFIG, pods)
    for one in pods:
        meta = one["metadata"]
        ready = ("--for=condition=Ready", "pod", meta["name"], "-n", meta["namespace"])
        lab.kubectl("wait", *ready, "--timeout=60s")


@pytest.fixture(scope="module")
def bed(installed: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    for name in NAMESPACES:
        installed.kubectl("create", "namespace", name)
    start_pods(installed, *SERVERS, *CLIENTS)
    file = tmp_path_factory.mktemp("up") / "up.yaml"
    file.write_text(WORKSPACE)
    ringfence("apply", "--yes", "-f", str(file))
    ringfence("enforce", "up", "--yes")
    clients = [one["metadata"] for one in CLIENTS]
    networks = [network_of(installed, one["name"], one["namespace"]) for one in clients]
    where = install.installed(CONFIG)
    bearer = {"Authorization": f"Bearer {where.token_file.read_text().strip()}"}
    trust = ssl.create_default_context(cafile=where.ca)
    with httpx.Client(base_url=where.server, headers=bearer, verify=trust) as control:
        made = Bed(installed, control, *networks)
        made.settled()
        yield made
    ringfence("enforce", "--off", "--yes")
    installed.kubectl("delete", "namespace", *NAMESPACES)


@pytest.fixture(scope="module")
def clocks(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocks]:
    with set_clocks(bed.lab, tmp_path_factory.mktemp("clock")) as made:
        bed.settled()
        yield made
    bed.settled()


def test_a_restarted_container_runtime_interrupts_nothing(bed: Bed) -> None:
    with bed.probed() as (dialled, held):
        ringfence("lab", "reboot", "node1", "--runtime", "--away", "5")
        bed.settled()
    assert dialled.always
    assert held.always


def test_a_rolling_upgrade_of_the_agents_leaves_no_window(bed: Bed, tmp_path: Path) -> None:
    """To another image; nor has a pod one that starts before the next agent is there."""
    image = load_release("0.1.0+next", tmp_path / "next.tar")
    daemon = ("-n", "ringfence", "daemonset/agent")
    witness = ("python3", "-c", WITNESS, bed.server)
    late = [pod(f"late-{n}", "up", f"node{n % 2 + 1}", {"role": "foe"}, witness) for n in range(6)]
    with bed.probed() as (dialled, held):
        bed.lab.kubectl("set", "image", *daemon, f"*={image}")
        for one in late:
            apply(CONFIG, [one])
            time.sleep(1)
        bed.lab.kubectl("rollout", "status", *daemon, "--timeout=120s")
        bed.settled()
    assert dialled.always
    assert held.always
    names = [one["metadata"]["name"] for one in late]
    told = [bed.lab.kubectl("logs", "-n", "up", name) for name in names]
    bed.lab.kubectl("delete", "pod", "-n", "up", *names)
    assert not any(told), told
    assert {one["release"] for one in agents()} == {"0.1.0+next"}


def load_release(release: str, file: Path) -> str:
    """Load Ringfence's image into every node as of another release; the name it has."""
    name = "localhost/ringfence/ringfence:next"
    with shown() as progress:
        another_release(images.ringfence_image(progress), file, name, release)
    config, record = cluster.running(CONFIG)
    for spec in config.node_specs:
        node.load_image(machine.find(config, record, spec.name), file)
    return name


def test_a_booted_node_has_its_rules_again(bed: Bed) -> None:
    """What is on it starts before its agent does, behind the gate that the node loads itself."""
    addresses = following(bed.server, 60)
    with ExitStack() as stack:
        friend = stack.enter_context(bed.friend.dialling(*addresses, patience=2))
        foe = stack.enter_context(bed.foe.dialling(*addresses))
        stranger = stack.enter_context(bed.stranger.dialling(*addresses))
        ringfence("lab", "reboot", "node1")
        until("the server is there again", lambda: bed.server in addresses, 60)
        bed.settled()
        time.sleep(5)
    assert friend.told[-1][1], "the server is reached again"
    assert foe.never
    assert stranger.never


@contextmanager
def one_address(address: str) -> Iterator[Path]:
    """node2's CNI has just this address to give; its record, which is there while a pod has it."""
    disk = CONFIG.data / "node2"
    file = disk / "etc/cni/net.d/10-lab.conflist"
    before = file.read_text()
    config = json.loads(before)
    (span,) = config["plugins"][0]["ipam"]["ranges"][0]
    span |= {"rangeStart": address, "rangeEnd": address}
    file.write_text(json.dumps(config))
    try:
        yield disk / "var/lib/cni/networks/lab" / address
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("namespace", "role", "told"),
    [
        ("up", "foe", set()),
        ("elsewhere", "friend", set()),
        ("up", "friend", {"reached the server"}),
    ],
)
def test_who_gets_an_address_at_once_gets_no_rights_with_it(
    bed: Bed, namespace: str, role: str, told: set[str]
) -> None:
    """The one before may dial the server, and be dialled by the friend."""
    rights = {"role": "friend", "app": "server"}
    # Told to end, it takes a second: its address is free before Kubernetes' API says so.
    first = pod("before", "up", "node2", rights, ECHO, grace_s=1)
    start_pods(bed.lab, first)
    before = network_of(bed.lab, "before", "up")
    until("it has its rights", lambda: before.reaches(bed.server))
    until("others have theirs", lambda: bed.friend.reaches(before.address))
    witness = ("python3", "-c", WITNESS, bed.server)
    after = pod("after", namespace, "node2", {"role": role}, witness)
    with one_address(before.address) as record, bed.friend.dialling(before.address, patience=0.2):
        bed.lab.kubectl("delete", "pod", "-n", "up", "before", "--wait=false")
        while record.exists():
            time.sleep(0.01)
        freed = time.time()
        apply(CONFIG, [after])
        until("the address is given again", record.exists)
        within = record.stat().st_mtime - freed
        start_pods(bed.lab, after)
        assert bed.address("after", namespace) == before.address
        time.sleep(5)
    lines = bed.lab.kubectl("logs", "-n", namespace, "after").splitlines()
    bed.lab.kubectl("delete", "pod", "-n", namespace, "after")
    bed.settled()
    assert set(lines) == told
    assert within < 1


def test_policies_that_flap_end_as_they_were_last(bed: Bed) -> None:
    """200 changes in 20 s, of what the stranger may; the friend's connections are not concerned."""
    sets = [("up",), ("up", "strangers")]
    with bed.probed() as (dialled, held):
        began = time.monotonic()
        for turn in range(200):
            bed.enforce(*sets[turn % 2])
            time.sleep(max(0, began + (turn + 1) / 10 - time.monotonic()))
        bed.settled()
        assert not bed.stranger.reaches(bed.open)
        bed.enforce("up")
        until("nothing keeps it any more", lambda: bed.stranger.reaches(bed.open), 10)
    assert dialled.always
    assert held.always


@pytest.mark.timeout(600)  # the first one also starts agents and control plane anew
@pytest.mark.parametrize(("control", "agents"), [(DAY, -DAY), (-DAY, DAY)])
def test_clocks_that_are_set_change_no_rules(
    bed: Bed, clocks: Clocks, control: int, agents: int
) -> None:
    """Changes come through meanwhile, and a trial lasts no longer."""
    with bed.probed() as (dialled, held):
        clocks.set(control, agents)
        bed.change("friend")
        until("the new label gives its right", lambda: bed.changer.reaches(bed.server))
        bed.change("foe")
        until("the old one takes it away", lambda: not bed.changer.reaches(bed.server))
        bed.enforce("up", "strangers", confirm_seconds=20)
        clocks.set(control - DAY, agents - DAY)
        until("it is on trial", lambda: not bed.stranger.reaches(bed.open), 15)
        until("it is taken back", lambda: bed.stranger.reaches(bed.open), 40)
        clocks.set(0, 0)
    assert dialled.always
    assert held.always
