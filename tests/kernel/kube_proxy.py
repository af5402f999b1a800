"""Real kube-proxies on the nodes of `cluster.py`, against a real Kubernetes API.

The API listens on the loopback of the host; each node has a relay to it on its own, where no rule
of ours judges anything.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ringfence.model.protocol import format_protocol
from tests.apiserver import CACHE, Api, process
from tests.kernel.cluster import NODES, PODS, Cluster, Service, address, home
from tests.kernel.netns import Namespace

SERVICE_NETWORKS = "10.96.0.0/24,fd00:96::/112"
MODES = ("iptables", "nftables")
FAMILIES = ("IPv4", "IPv6")
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
_HOST = f"/proc/{os.getpid()}/ns/net"


def declare(api: Api, services: Sequence[Service]) -> None:
    """Tell the API of the nodes and of these Services and their backends."""
    for at, held in enumerate(NODES):
        addresses = [{"type": "InternalIP", "address": one} for one in held]
        body = {"metadata": {"name": f"n{at + 1}"}, "status": {"addresses": addresses}}
        api.call("POST", "/api/v1/nodes", body)
    for one in services:
        _declare_service(api, one)
        for of in range(len(FAMILIES)):
            api.call("POST", SLICES, endpoints(one, of))


def _declare_service(api: Api, one: Service) -> None:
    port: dict[str, Any] = {
        "name": "p", "protocol": format_protocol(one.protocol), "port": one.port,
        "targetPort": one.target,
    }  # fmt: skip
    spec: dict[str, Any] = {
        "type": "ClusterIP", "clusterIP": one.address[0], "clusterIPs": one.address,
        "ipFamilies": FAMILIES, "ipFamilyPolicy": "RequireDualStack", "ports": [port],
    }  # fmt: skip
    if one.node_port:
        port["nodePort"] = one.node_port
        spec["type"] = "LoadBalancer" if one.external else "NodePort"
        spec["loadBalancerSourceRanges"] = one.sources
        spec["externalTrafficPolicy"] = "Local" if one.local else "Cluster"
    where = "/api/v1/namespaces/default/services"
    made = api.call("POST", where, {"metadata": {"name": one.name}, "spec": spec})
    if one.external:
        made["status"] = {"loadBalancer": {"ingress": [{"ip": front} for front in one.external]}}
        api.call("PUT", f"{where}/{one.name}/status", made)


def endpoints(one: Service, of: int) -> dict[str, Any]:
    """The EndpointSlice of a Service's backends in the family at that place."""
    return {
        "metadata": {
            "name": f"{one.name}-{of}",
            "labels": {"kubernetes.io/service-name": one.name},
        },
        "addressType": FAMILIES[of],
        "ports": [
            {"name": "p", "protocol": format_protocol(one.protocol), "port": one.target}
        ],
        "endpoints": [
            {
                "addresses": [address(number)[of]],
                "conditions": {"ready": True},
                "nodeName": f"n{home(number) + 1}",
            }
            for number in one.backends
        ],
    }  # fmt: skip


@contextlib.contextmanager
def proxying(made: Cluster, api: Api, mode: str) -> Iterator[None]:
    """A kube-proxy of that mode on each node, once all its rules stand."""
    program = max(CACHE.glob("kubernetes-*/kube-proxy"))
    with contextlib.ExitStack() as stack:
        for node in made.nodes:
            enter = ["ip", "netns", "exec", node.name]
            relay = f"{api.port}=127.0.0.1:{api.port}"
            stack.enter_context(process(
                [*enter, sys.executable, "-m", "ringfence.lab.relay", _HOST, relay],
                api.directory / f"relay-{node.name}.log",
            ))  # fmt: skip
            stack.enter_context(process(
                [
                    *enter, str(program),
                    f"--kubeconfig={api.kubeconfig()}",
                    f"--hostname-override=n{made.nodes.index(node) + 1}",
                    f"--proxy-mode={mode}",
                    f"--cluster-cidr={','.join(PODS)}",
                    # Nothing but a change makes it write, and the host's limits stay.
                    "--iptables-sync-period=1h",
                    "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0",
                    "--conntrack-tcp-timeout-close-wait=0",
                ],
                api.directory / f"kube-proxy-{node.name}.log",
            ))  # fmt: skip
        for node in made.nodes:
            await_rules(node, [front for one in made.services for front in one.address])
        yield


def await_rules(node: Namespace, texts: Sequence[str]) -> None:
    """Until its rules name all of these; what kube-proxy says is in the API's directory."""
    until = time.monotonic() + 60
    while missing := [one for one in texts if one not in node.run("nft", "list", "ruleset")]:
        assert time.monotonic() < until, f"kube-proxy wrote no rules for {missing}"
        time.sleep(0.2)
