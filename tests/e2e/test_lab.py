"""The lab is a real cluster with a real shop in it, and keeps to itself."""

import hashlib
import ipaddress
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from ringfence.lab.build import kubernetes_version
from ringfence.lab.config import LabConfig, cache_dir
from ringfence.lab.processes import Process
from ringfence.lab.shop.manifests import PAGES
from tests.e2e.cluster import COMMAND, Lab, ringfence, until

CONFIG = LabConfig()
EXTERNAL = str(CONFIG.external.address)
NODES = {spec.name: str(spec.address) for spec in CONFIG.node_specs}


def test_remains_of_a_killed_lab_were_taken_away(lab: Lab, killed_lab: list[Process]) -> None:
    assert not [p for p in killed_lab if p.alive]


def test_every_machine_is_ready_and_pods_run_on_both_nodes(lab: Lab) -> None:
    machines = {m["name"]: m for m in lab.status()["machines"]}
    assert list(machines) == ["control", "node1", "node2", "external"]
    assert all(m["ready"] and not m["ended"] for m in machines.values())
    assert all(machines[node]["pods"][0] >= 5 for node in NODES)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_served_through_every_node(lab: Lab, node: str, page: str) -> None:
    code = (
        f"import urllib.request as u; print(u.urlopen('http://{NODES[node]}:31095{page}').status)"
    )
    assert lab.on("external", "python3", "-c", code) == "200\n"


def test_services_have_the_published_numbers(lab: Lab) -> None:
    services = {
        s["metadata"]["name"]: s["spec"] for s in lab.get("svc", "-n", "sock-shop")["items"]
    }
    front_end = services["front-end"]["ports"][0]
    assert (front_end["port"], front_end["targetPort"], front_end["nodePort"]) == (80, 8079, 31095)
    assert services["carts"]["clusterIP"] == "10.100.135.136"
    ports = {name: spec["ports"][0]["port"] for name, spec in services.items()}
    assert ports == {
        **dict.fromkeys(["carts", "catalogue", "front-end", "orders", "payment"], 80),
        **dict.fromkeys(["queue-master", "shipping", "user", "catalogue-outside"], 80),
        **dict.fromkeys(["carts-db", "orders-db", "user-db", "user-db-direct"], 27017),
        "catalogue-db": 3306,
        "rabbitmq": 5672,
        "session-db": 6379,
    }


def test_a_page_fails_when_a_call_behind_it_fails(lab: Lab) -> None:
    """Else "the shop serves every page" would show nothing."""
    lab.kubectl("scale", "-n", "sock-shop", "deploy/catalogue-db", "--replicas=0", "--timeout=20s")
    code = (
        "import urllib.request as u, urllib.error as e\n"
        f"try: print(u.urlopen('http://{NODES['node1']}:31095/catalogue').status)\n"
        "except e.HTTPError as error: print(error.code)"
    )
    try:
        until("it fails", lambda: lab.on("external", "python3", "-c", code) == "503\n")
    finally:
        lab.kubectl("scale", "-n", "sock-shop", "deploy/catalogue-db", "--replicas=1")
    until("it is served again", lambda: lab.on("external", "python3", "-c", code) == "200\n")


def test_pod_to_pod_keeps_its_address_and_pod_to_outside_takes_the_nodes(lab: Lab) -> None:
    pod = lab.get("pod", "-n", "sock-shop", "-l", "name=front-end")["items"][0]
    hold = (
        "import socket, subprocess, sys\n"
        "with socket.create_connection(({host!r}, {port}), 2) as s:\n"
        "    s.sendall(b'GET item\\n'); s.recv(64); print(s.getsockname()[1])\n"
        "    sys.stdout.flush(); sys.stdin.read()"
    )
    for host, port, machine, seen_as in (
        (EXTERNAL, 666, "external", NODES[pod["spec"]["nodeName"]]),
        ("user-db-direct", 27017, "user-db", pod["status"]["podIP"]),
    ):
        code = hold.format(host=host, port=port)
        argv = ["exec", "-i", "-n", "sock-shop", "deploy/front-end", "--", "python3", "-c", code]
        with subprocess.Popen(
            [COMMAND, "lab", "kubectl", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as held:
            assert held.stdout is not None
            assert held.stdout.readline()
            peers = _peers(lab, machine, port)
            held.communicate()
        assert seen_as in peers


def _peers(lab: Lab, server: str, port: int) -> set[str]:
    """Addresses from which connections to a server's port are open, as the server sees them."""
    table = Path("/proc/net/tcp")
    code = f"print(open('{table}').read())"
    text = (
        lab.on("external", "cat", str(table)) if server == "external" else lab.in_pod(server, code)
    )
    peers = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == "01" and int(fields[1].split(":")[1], 16) == port:
            number = int.from_bytes(bytes.fromhex(fields[2].split(":")[0]), "little")
            peers.add(str(ipaddress.ip_address(number)))
    return peers


def test_kept_connections_stay_open(lab: Lab) -> None:
    for name, url in (
        ("front-end", "tcp://session-db:6379"),
        ("queue-master", "tcp://rabbitmq:5672"),
    ):
        until(
            f"{name} reports its connection",
            lambda name=name: any(e["event"] == "kept" for e in lab.events(f"deploy/{name}")),  # type: ignore[misc]
        )
        about = [e for e in lab.events(f"deploy/{name}") if e.get("url") == url]
        assert [e["event"] for e in about].count("opened") == 1
        assert not [e for e in about if e["event"] == "lost"]


def test_load_generator_counts_its_connections_on_both_nodes(lab: Lab) -> None:
    first = lab.status()["load"]["targets"]
    assert set(first) == {f"{address}:31095" for address in NODES.values()}

    def grown() -> bool:
        now = lab.status()["load"]["targets"]
        return all(now[t]["answered"] > first[t]["answered"] for t in first)

    until("customers were served by both nodes", grown)


def test_intruder_scans_and_reaches_user_db(lab: Lab) -> None:
    ringfence("lab", "intruder", "start")
    try:

        def results(event: str) -> set[str]:
            return {e["result"] for e in lab.events("pod/intruder") if e["event"] == event}

        for event in ("call", "scan"):
            until(f"a {event} connected", lambda e=event: "connected" in results(e), seconds=60)  # type: ignore[misc]
    finally:
        ringfence("lab", "intruder", "stop")
    assert not lab.get("pod", "-n", "sock-shop", "-l", "name=intruder")["items"]


def test_kubeconfig_works_from_the_host(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(ringfence("lab", "kubeconfig"))
    kubectl = cache_dir() / f"kubernetes-{kubernetes_version()}/kubectl"
    argv = [str(kubectl), f"--kubeconfig={file}", "get", "nodes", "-o", "name"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"node/{node}" for node in NODES]


def test_no_address_of_the_lab_is_on_the_host(lab: Lab) -> None:
    lab_networks = (CONFIG.lan, CONFIG.pods, CONFIG.services, CONFIG.outside)
    listed = json.loads(
        subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout
    )
    addresses = [ipaddress.ip_address(a["local"]) for i in listed for a in i["addr_info"]]
    assert not [a for a in addresses if any(a in network for network in lab_networks)]


def test_load_puts_an_image_into_every_node(lab: Lab, tmp_path: Path) -> None:
    name = "localhost/test/empty:1"
    ringfence("lab", "load", str(_empty_image(tmp_path, name)))
    for node in NODES:
        assert name in lab.on(node, "ctr", "-n", "k8s.io", "images", "ls", "-q")


def _empty_image(directory: Path, name: str) -> Path:
    """An archive as `docker save` writes it, with one empty layer."""
    with tarfile.open(directory / "layer.tar", "w"):
        pass
    digest = hashlib.sha256((directory / "layer.tar").read_bytes()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(directory / "image.tar", "w") as archive:
        for part in ("manifest.json", "config.json", "layer.tar"):
            archive.add(directory / part, part)
    return directory / "image.tar"
