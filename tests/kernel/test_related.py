"""What translation makes of a connection is told with the tuple before it, on each path."""

import numpy as np
import pytest

from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.kernel.capture import FlowCapture
from ringfence.model.address import Address, format_address
from ringfence.model.flow import Observer
from tests.kernel.netns import Node, node_with_pods
from tests.kernel.observe import attach
from tests.kernel.traffic import tcp_echo, tcp_exchange

Tuple = tuple[str, str, int]
NOTHING_LISTENS = Listening(
    np.empty(0, np.uint8), np.empty((0, 16), np.uint8), np.empty(0, np.uint16)
)
POD, POD_GATEWAY = "10.99.1.2", "10.99.1.1"
OUTSIDE, NODE = "10.99.2.2", "10.99.2.1"
SERVICE = "10.100.0.9"
UNTRANSLATED: Tuple = ("::", "::", 0)

KUBE_PROXY = f"""
table ip nat {{
    chain services {{
        ip daddr {SERVICE} tcp dport 80 goto backend
        fib daddr type local tcp dport 31095 meta mark set mark or 0x4000 goto backend
        fib daddr type local tcp dport 31096 goto backend
    }}
    chain backend {{
        ip saddr {POD} meta mark set mark or 0x4000
        meta l4proto tcp dnat to {POD}:8079
    }}
    chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        mark and 0x4000 == 0x4000 masquerade fully-random
        ip saddr {POD} ip daddr {OUTSIDE} masquerade
    }}
}}
"""
"""As kube-proxy and a CNI write them: 31095 is for `externalTrafficPolicy: Cluster`, 31096 for
`Local`; a pod that reaches itself through its Service is masqueraded."""

PATHS: list[tuple[str, Tuple, Tuple]] = [
    ("NodePort, Cluster", (OUTSIDE, NODE, 31095), (POD_GATEWAY, POD, 8079)),
    ("NodePort, Local", (OUTSIDE, NODE, 31096), (OUTSIDE, POD, 8079)),
    ("hairpin", (POD, SERVICE, 80), (POD_GATEWAY, POD, 8079)),
    ("pod to outside", (POD, OUTSIDE, 666), (NODE, OUTSIDE, 666)),
]


@pytest.mark.parametrize(("dialled", "arrives"), [path[1:] for path in PATHS],
                         ids=[path[0] for path in PATHS])  # fmt: skip
def test_the_translated_record_has_the_tuple_before(
    capture: FlowCapture, dialled: Tuple, arrives: Tuple
) -> None:
    with node_with_pods(2) as node:
        node.nft(KUBE_PROXY)
        attach(capture, node)
        namespaces = {pod.address: pod for pod in node.pods}
        client, server = namespaces[dialled[0]], namespaces[arrives[1]]
        with tcp_echo(server, arrives[1], arrives[2]):
            tcp_exchange(client, dialled[1], dialled[2], b"hello")
        told = rows(capture, node)
    assert told == {(dialled, UNTRANSLATED): 1, (arrives, dialled): 1}


def rows(capture: FlowCapture, node: Node) -> dict[tuple[Tuple, Tuple], int]:
    """Connections opened, by the tuple that was seen and the one before translation."""
    interfaces = np.array([pod.host_ifindex for pod in node.pods], np.uint32)
    records = capture.drain()
    tcp = records[records["protocol"] == 6]
    columns = conversations(tcp, interfaces, NOTHING_LISTENS, frozenset(), Orientations()).columns()
    assert {*columns["observer"].tolist()} == {Observer.POD}
    ends = [
        [
            (_text(consumer), _text(provider), int(port))
            for consumer, provider, port in zip(
                columns[f"{prefix}consumer"],
                columns[f"{prefix}provider"],
                columns[f"{prefix}provider_port"],
                strict=True,
            )
        ]
        for prefix in ("", "original_")
    ]
    return dict(zip(zip(*ends, strict=True), columns["opened"].tolist(), strict=True))


def _text(octets: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> str:
    return format_address(Address(octets.tobytes()))
