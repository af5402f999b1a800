"""What enforcement costs packets: two pods, each a network namespace, joined by a veth pair.

    python -m bench.packet_cost    (as root)

Throughput is by iperf3; exchanges and new connections are by Python at both ends, whose own time
is in every figure. The last of each pod's policies is the one that allows. The three variants
follow one another in each round, and a ratio is of the two figures of one round.
"""

import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.company import EAST, FIRST_POD, REPLICAS, Company, found, policy, v4
from bench.enforcement import namespace
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

WORKLOADS, POLICIES, ROUNDS = 1_000, 500, 7
SECONDS, EXCHANGES = 2.0, 20_000
CLIENT, SERVER = 7, 8
"""The applications of the two pods."""
ECHO, ACCEPT, IPERF = 5001, 5002, 5201
Rules = Mapping[int, str]
"""By application, the commands that make its pod's table."""


def main() -> None:
    variants: dict[str, Rules | None] = {
        "no table": None,
        "no policy": rules(0),
        f"{POLICIES} policies": rules(POLICIES),
    }
    with pods() as places:
        rounds = [
            {name: measure(places, commands) for name, commands in variants.items()}
            for _ in range(ROUNDS)
        ]
    names = list(variants)
    for figure in rounds[0][names[0]]:
        at = {name: statistics.median(one[name][figure] for one in rounds) for name in names}
        print(f"{figure}: " + ", ".join(f"{value:,.1f} {name}" for name, value in at.items()))
        for base in names[:-1]:
            ratios = sorted(one[names[-1]][figure] / one[base][figure] for one in rounds)
            print(
                f"  {names[-1]} to {base}: {statistics.median(ratios):.3f}"
                f" ({ratios[0]:.3f} to {ratios[-1]:.3f} in {ROUNDS} rounds)"
            )


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
        tuple(PortRange(port, port) for port in (ECHO, ACCEPT, IPERF)),
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
def pods() -> Iterator[Mapping[int, Path]]:
    """Two network namespaces with the addresses of the two pods, and servers in the second."""
    with ExitStack() as held:
        places = {app: held.enter_context(namespace()) for app in (CLIENT, SERVER)}
        pair = ["link", "add", "eth0", "type", "veth", "peer", "eth0"]
        ip(places[CLIENT], *pair, "netns", places[SERVER].name)
        for app, where in places.items():
            ip(where, "address", "add", f"{address(app)}/8", "dev", "eth0")
            ip(where, "link", "set", "lo", "up")
            ip(where, "link", "set", "eth0", "up")
        inside = ["ip", "netns", "exec", places[SERVER].name]
        own = [sys.executable, "-m", __spec__.name]
        for command in (["iperf3", "-s"], [*own, str(ECHO)], [*own, str(ACCEPT)]):
            server = subprocess.Popen([*inside, *command], stdout=subprocess.DEVNULL)
            held.callback(server.wait)
            held.callback(server.terminate)
        for port in (IPERF, ECHO, ACCEPT):
            run_in(places[CLIENT], partial(await_server, port))
        yield places


def ip(where: Path, *command: str) -> None:
    subprocess.run(["ip", "-n", where.name, *command], check=True)


def await_server(port: int) -> None:
    """Until it takes connections."""
    while True:
        with suppress(ConnectionRefusedError):
            socket.create_connection((address(SERVER), port)).close()
            return
        time.sleep(0.1)


def address(app: int) -> str:
    return format_address(v4(FIRST_POD + app * REPLICAS))


def measure(places: Mapping[int, Path], commands: Rules | None) -> dict[str, float]:
    """The figures with these tables in both pods."""
    for app, place in places.items():
        nft.remove(place)
        if commands is not None:
            nft.apply(place, commands[app])

    def inside() -> dict[str, float]:
        took = sorted(exchanges())
        return {
            "Gbit/s": throughput(),
            "p50 of an exchange, us": took[len(took) // 2] / 1e3,
            "p99 of an exchange, us": took[len(took) * 99 // 100] / 1e3,
            "new connections/s": connections(),
        }

    return run_in(places[CLIENT], inside)


def throughput() -> float:
    command = ["iperf3", "-c", address(SERVER), "-t", str(int(SECONDS)), "-J"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def exchanges() -> Iterator[int]:
    """How long each exchange of one byte took, ns."""
    with socket.create_connection((address(SERVER), ECHO)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(EXCHANGES):
            begun = time.perf_counter_ns()
            connection.send(b".")
            connection.recv(1)
            yield time.perf_counter_ns() - begun


def connections() -> float:
    """Connections opened and closed one after the other, per second."""
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        with socket.create_connection((address(SERVER), ACCEPT)) as connection:
            # A reset leaves no TIME_WAIT: ports would run out.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        count += 1
    return count / (time.perf_counter() - begun)


def serve(port: int) -> None:
    """Take connections; on ECHO, send back what comes."""
    with socket.create_server(("", port), backlog=1024) as listening:
        while True:
            connection, _ = listening.accept()
            with connection:
                if port != ECHO:
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := connection.recv(1):
                    connection.send(data)


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(int(sys.argv[1]))
    else:
        main()
