"""What tests of the gate are made of: pods as agents see them, datagrams, and who was released."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ringfence.agent.enforce import Enforcer
from ringfence.agent.held import Outcome
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.agent.pods import Pod as Seen
from ringfence.kernel import nft
from ringfence.kernel.netns import inode
from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import UDP, PortRange
from ringfence.policy.program import (
    LINK_LOCAL,
    Gate,
    NodeBinding,
    NodePolicy,
    Passage,
    PodBinding,
    Program,
    ProgramId,
    Rule,
)
from tests.kernel.netns import Namespace, Pod
from tests.kernel.traffic import open_socket

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ALLOWED, DENIED = 80, 81
PROGRAM = ProgramId("udp-80")
POLICY = NodePolicy(
    ClusterId("c1"),
    NodeName("n1"),
    {},
    {
        PROGRAM: Program(
            (
                Rule("default/shop/p1/udp", Action.ALLOW, UDP, (PortRange(80, 80),), None),
                Rule("catch-all/shop/p1", Action.DENY, None, (), None),
            )
        )
    },
    (),
    NodeBinding((), None, None, None),
    (),
    Gate((parse_network("10.99.0.0/16"), parse_network("fd00:99::/32")), None, ()),
)


@dataclass
class Sink:
    """Counts the datagrams that come to a port of a namespace, of both families."""

    where: Namespace
    port: int
    sockets: list[socket.socket] = field(default_factory=list)
    heard: int = 0

    def __enter__(self) -> "Sink":
        for address in ("0.0.0.0", "::"):
            one = open_socket(self.where, address, socket.SOCK_DGRAM)
            if address == "::":
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            one.bind((address, self.port))
            one.setblocking(False)
            self.sockets.append(one)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()

    def count(self) -> int:
        """How many came since the beginning."""
        for one in self.sockets:
            with contextlib.suppress(BlockingIOError):
                while one.recv(100):
                    self.heard += 1
        return self.heard


@contextlib.contextmanager
def chatter(
    where: Namespace, *targets: tuple[str, int] | tuple[str, int, int, int]
) -> Iterator[list[int]]:
    """Send to all targets without end, from before there is a way; counts what was sent."""
    sockets = [open_socket(where, target[0], socket.SOCK_DGRAM) for target in targets]
    sent, ended = [0], threading.Event()

    def talk() -> None:
        while not ended.is_set():
            for one, target in zip(sockets, targets, strict=True):
                with contextlib.suppress(OSError):
                    one.sendto(b"x", target)
                    sent[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join(5)
        for one in sockets:
            one.close()


def place(where: Namespace, uid: str = "") -> Place:
    return Place(uid, where.path, inode(where.path))


def seen(pod: Pod, uid: str, in_namespace: str = "shop") -> Seen:
    addresses = tuple(map(parse_address, (pod.address, pod.address6)))
    behind = (*addresses, LINK_LOCAL.address)
    passages = frozenset(Passage(pod.host_device, address) for address in behind)
    return Seen(place(pod, uid), addresses, frozenset(), in_namespace, passages)


def bound(pod: Seen) -> PodBinding:
    programs = (PROGRAM,)
    return PodBinding(pod.place.uid, "shop", "pod", pod.addresses, programs, programs)


def enforce(
    enforcer: Enforcer,
    policy: NodePolicy,
    node: Namespace,
    *pods: Seen,
    links: frozenset[Passage] = frozenset(),
) -> Outcome:
    places = [*(pod.place for pod in pods), place(node)]
    outcome = enforcer.apply(Order(1, policy), places, pods, links)
    assert not outcome.problems
    return outcome


def policy_of(*governed: Seen, free: tuple[str, ...] = ()) -> NodePolicy:
    assert POLICY.gate is not None
    gate = replace(POLICY.gate, free=free)
    return replace(POLICY, pods=tuple(map(bound, governed)), gate=gate)


def await_(what: str, sinks: list[Sink]) -> None:
    until = time.monotonic() + 5
    counts = [sink.count() for sink in sinks]
    while not all(now > was for now, was in zip([s.count() for s in sinks], counts, strict=True)):
        assert time.monotonic() < until, what
        time.sleep(0.005)


def released(node: Namespace) -> set[Passage]:
    found = set()
    for one in nft.list_table(node.path) or ():
        held = one.get("set", {})
        if held.get("name") == "rf_released_links":
            found |= {Passage(name, LINK_LOCAL.address) for name in held.get("elem", ())}
        elif held.get("name", "").startswith("rf_released"):
            pairs = (element["concat"] for element in held.get("elem", ()))
            found |= {Passage(name, parse_address(address)) for name, address in pairs}
    return found
