"""What enforcement costs packets: two pods, each a network namespace, on one node.

    python -m bench.packet_cost [rounds]    (as root)

Twice: joined by a veth pair and nothing else, and by a node that routes between them, with the
chains that kube-proxy writes in iptables mode for one Service, with connection tracking and
NAT. The variants follow one another in each round, in an order of its own; a ratio is of two
figures of one round, and what is told is the median of the rounds' ratios with its bootstrapped
95 % interval.

Client and server are Python on a processor each, whose own time is in every figure. Time of the
processor is that of both processes; what the kernel does in interrupts of theirs is in it. The last
of each pod's policies is the one that allows.
"""

import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.company import EAST, FIRST_POD, REPLICAS, Company, found, policy, v4
from bench.enforcement import namespace
from bench.figures import load
from ringfence.kernel import nft
from ringfence.kernel.netns import run_in
from ringfence.model.address import format_address
from ringfence.model.ids import NodeName, PolicyId
from ringfence.model.policy import Action, CatchAll, FilterEnd, Policy, Rank, ServiceEnd
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import parse
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import PolicySet

WORKLOADS, POLICIES, ROUNDS = 1_000, 500, 60
SECONDS, EXCHANGES = 0.3, 4_000
"""Of one figure."""
CLIENT, SERVER = 7, 8
"""The applications of the two pods."""
PROCESSORS = sorted(os.sched_getaffinity(0))
"""The client runs on the first one, the server on the last one."""
ECHO, ACCEPT, SINK = 5001, 5002, 5003
GATEWAY = "10.255.255.254"
CHUNK, RESAMPLED = 1 << 18, 2_000
Rules = Mapping[int, str]
"""By application, the commands that make its pod's table."""
TRACKING = "add table inet ringfence\n" + "".join(
    f"add chain inet ringfence {hook} {{ type filter hook {hook} priority -150; }}\n"
    f"add rule inet ringfence {hook} ct state established accept\n"
    for hook in ("input", "output")
)
"""The least that has a namespace track connections and ask for them."""
KUBE_PROXY = """*mangle
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-1 - [0:0]
:KUBE-SVC-1 - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.1.255.2:6443
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-1
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-1 -j KUBE-SEP-1
COMMIT
"""
"""As kube-proxy 1.34 writes for a cluster with the Service `default/kubernetes` alone."""


@dataclass(frozen=True)
class Pods:
    """The two pods' namespaces, and the processes that serve in the second, by port."""

    places: Mapping[int, Path]
    servers: Mapping[int, int]


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    variants: dict[str, Rules | None] = {
        "no table": None,
        "tracking alone": dict.fromkeys((CLIENT, SERVER), TRACKING),
        "no policy": rules(0),
        f"{POLICIES} policies": rules(POLICIES),
    }
    for through, joined in (("a veth pair", joined_pods), ("a node with kube-proxy", routed_pods)):
        with serving(joined) as pods:
            os.sched_setaffinity(0, PROCESSORS[:1])
            measure(pods, rules(POLICIES))  # to warm up
            seen = [in_turn(pods, variants, random.Random(at)) for at in range(rounds)]
        print(f"through {through}, {rounds} rounds, {load()}")
        report(seen, list(variants))


def in_turn(
    pods: Pods, variants: Mapping[str, Rules | None], chance: random.Random
) -> dict[str, dict[str, float]]:
    """One round: the figures of each variant."""
    names = chance.sample(list(variants), len(variants))
    return {name: measure(pods, variants[name]) for name in names}


def report(seen: list[dict[str, dict[str, float]]], names: list[str]) -> None:
    """Medians of figures, and of ratios to the last variant."""
    for figure in seen[0][names[0]]:
        at = {name: statistics.median(one[name][figure] for one in seen) for name in names}
        print(f"  {figure}: " + ", ".join(f"{value:,.2f} {name}" for name, value in at.items()))
        for base in names[:-1]:
            ratios = [one[names[-1]][figure] / one[base][figure] for one in seen]
            first, last = interval(ratios)
            middle = statistics.median(ratios)
            print(f"    {names[-1]} to {base}: {middle:.3f} ({first:.3f} to {last:.3f})")


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by the percentiles of medians of what is drawn anew."""
    chance = random.Random(1)
    size = len(ratios)
    drawn = sorted(statistics.median(chance.choices(ratios, k=size)) for _ in range(RESAMPLED))
    return drawn[RESAMPLED // 40], drawn[-RESAMPLED // 40]


def rules(policies: int) -> Rules:
    """Both pods' tables: so many policies about each, and one that allows what is measured."""
    company = found(WORKLOADS, 0)
    compiled = compile_policies(stated(company, policies), ())
    backend, tables = Nftables(), {}
    for app in (CLIENT, SERVER):
        (item,) = (one for one in company.items if one.name == f"app-{app}-0")
        decided = compiled.policies[EAST, NodeName(item.node)]
        (binding,) = (pod for pod in decided.pods if pod.name == item.name)
        tables[app] = backend.transaction(backend.render_pod(decided, binding), None)
    return tables


def stated(company: Company, policies: int) -> PolicySet:
    chance = random.Random(1)
    names = [scope.name for scope in company.tree.preorder()]
    drawn = [policy(at, WORKLOADS // REPLICAS, names, chance) for at in range(2 * policies)]
    said = [about(one, at) for at, one in enumerate(drawn)]
    allowing = Policy(
        PolicyId("measured"),
        FilterEnd(parse(f'kubernetes.label.app = "app-{CLIENT}"')),
        FilterEnd(parse(f'kubernetes.label.app = "app-{SERVER}"')),
        TCP,
        tuple(PortRange(port, port) for port in (ECHO, ACCEPT, SINK)),
        Action.ALLOW,
        Rank.DEFAULT,
        priority=9,
    )
    workspace, version = company.enforced[0]
    deny = CatchAll(Action.DENY, Action.DENY)
    whole = replace(workspace, policies=(*said, allowing), catch_all=deny)
    return PolicySet(company.snapshot, company.tree, [(whole, version)])


def about(drawn: Policy, number: int) -> Policy:
    """The policy with one of the two pods at an end, and none of the ports that are measured."""
    if isinstance(drawn.provider, ServiceEnd) or number % 2:
        end = {"consumer": FilterEnd(parse(f'kubernetes.label.app = "app-{CLIENT}"'))}
    else:
        end = {"provider": FilterEnd(parse(f'kubernetes.label.app = "app-{SERVER}"'))}
    ports = drawn.ports or (PortRange(80, 80),)
    return replace(
        drawn, id=PolicyId(f"p{number}"), protocol=drawn.protocol or TCP, ports=ports, **end
    )


@contextmanager
def serving(joined: Callable[[ExitStack], Mapping[int, Path]]) -> Iterator[Pods]:
    """Two pods that are joined, with servers in the second."""
    with ExitStack() as held:
        places = joined(held)
        servers = {}
        for port in (ECHO, ACCEPT, SINK):
            command = [sys.executable, "-m", __spec__.name, "serve", str(port), str(PROCESSORS[-1])]
            server = subprocess.Popen(["ip", "netns", "exec", places[SERVER].name, *command])
            held.callback(server.wait)
            held.callback(server.terminate)
            servers[port] = server.pid
            run_in(places[CLIENT], partial(await_server, port))
        yield Pods(places, servers)


def joined_pods(held: ExitStack) -> Mapping[int, Path]:
    places = {app: held.enter_context(namespace()) for app in (CLIENT, SERVER)}
    pair = ["link", "add", "eth0", "type", "veth", "peer", "eth0"]
    ip(places[CLIENT], *pair, "netns", places[SERVER].name)
    for app, where in places.items():
        ip(where, "address", "add", f"{address(app)}/8", "dev", "eth0")
        up(where, "eth0")
    return places


def routed_pods(held: ExitStack) -> Mapping[int, Path]:
    """Each behind a veth pair of the node, as a CNI that routes does it."""
    node = held.enter_context(namespace())
    places = {app: held.enter_context(namespace()) for app in (CLIENT, SERVER)}
    run_in(node, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    inside = ["ip", "netns", "exec", node.name]
    for app, where in places.items():
        pair = ["link", "add", f"pod{app}", "type", "veth", "peer", "eth0", "netns", where.name]
        ip(node, *pair)
        ip(node, "address", "add", f"{GATEWAY}/32", "dev", f"pod{app}")
        up(node, f"pod{app}")
        ip(where, "address", "add", f"{address(app)}/32", "dev", "eth0")
        up(where, "eth0")
        ip(where, "route", "add", GATEWAY, "dev", "eth0", "scope", "link")
        ip(where, "route", "add", "default", "via", GATEWAY)
        ip(node, "route", "add", f"{address(app)}/32", "dev", f"pod{app}")
    subprocess.run([*inside, "iptables-restore"], input=KUBE_PROXY, text=True, check=True)
    return places


def ip(where: Path, *command: str) -> None:
    subprocess.run(["ip", "-n", where.name, *command], check=True)


def up(where: Path, device: str) -> None:
    for one in ("lo", device):
        ip(where, "link", "set", one, "up")


def await_server(port: int) -> None:
    """Until it takes connections."""
    while True:
        with suppress(ConnectionRefusedError):
            socket.create_connection((address(SERVER), port)).close()
            return
        time.sleep(0.1)


def address(app: int) -> str:
    return format_address(v4(FIRST_POD + app * REPLICAS))


def measure(pods: Pods, commands: Rules | None) -> dict[str, float]:
    """The figures with these tables in both pods."""
    for app, place in pods.places.items():
        nft.remove(place)
        if commands is not None:
            nft.apply(place, commands[app])

    def inside() -> dict[str, float]:
        sent, seconds, busy = timed(pods.servers[SINK], stream)
        opened, opening, busy_opening = timed(pods.servers[ACCEPT], connections)
        took = sorted(exchanges())
        return {
            "Gbit/s": sent * 8 / 1e9 / seconds,
            "processor, ns per kB": busy * 1e9 / (sent / 1e3),
            "p50 of an exchange, us": took[len(took) // 2] / 1e3,
            "p99 of an exchange, us": took[len(took) * 99 // 100] / 1e3,
            "new connections/s": opened / opening,
            "processor, us per connection": busy_opening * 1e6 / opened,
        }

    return run_in(pods.places[CLIENT], inside)


def timed(server: int, work: Callable[[], int]) -> tuple[int, float, float]:
    """What was done, in how many seconds, and in how many of the processor, the server's too."""
    clock = ~server << 3 | 2  # CPUCLOCK_SCHED of another process (posix-timers_types.h)

    def busy() -> float:
        return time.thread_time() + time.clock_gettime(clock)

    begun, before = time.perf_counter(), busy()
    done = work()
    return done, time.perf_counter() - begun, busy() - before


def stream() -> int:
    """Bytes that were sent and received."""
    chunk, sent = bytes(CHUNK), 0
    with socket.create_connection((address(SERVER), SINK)) as connection:
        begun = time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            connection.sendall(chunk)
            sent += CHUNK
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the end, once the other has read all
    return sent


def exchanges() -> Iterator[int]:
    """How long each exchange of one byte took, ns."""
    with socket.create_connection((address(SERVER), ECHO)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(EXCHANGES):
            begun = time.perf_counter_ns()
            connection.send(b".")
            connection.recv(1)
            yield time.perf_counter_ns() - begun


def connections() -> int:
    """How many were opened and closed one after the other."""
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        with socket.create_connection((address(SERVER), ACCEPT)) as connection:
            # A reset leaves no TIME_WAIT: ports would run out.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        count += 1
    return count


def serve(port: int) -> None:
    """Take connections; on ECHO, send back what comes, on SINK read it."""
    buffer = bytearray(CHUNK)
    with socket.create_server(("", port), backlog=1024) as listening:
        while True:
            connection, _ = listening.accept()
            with connection:
                if port == SINK:
                    while connection.recv_into(buffer):
                        pass
                elif port == ECHO:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while data := connection.recv(1):
                        connection.send(data)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        os.sched_setaffinity(0, {int(sys.argv[3])})
        serve(int(sys.argv[2]))
    else:
        main()
