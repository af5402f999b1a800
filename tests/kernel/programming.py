"""An agent's programming that is killed again and again, each time at another moment.

    python -m tests.kernel.programming KILLS GOVERNED FRESH FRIEND

A child per kill writes two policies of the pods in turn, with another frame and other elements
each, and takes the rules of the second pod away in between. Both admit FRIEND to ports 80 and 81,
and nobody to 82. After each kill, a line on stdout says what was found in the two namespaces:
`none`, `tracking`, or the number of the policy whose rules stand there whole, but perhaps for the
one that silences and the table before packet sockets, which come a moment later; `broken` for
anything else.

The arguments after the first are NAME=ADDRESS, of network namespaces.
"""

import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel import nft
from ringfence.kernel.errors import KernelError
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.kernel.rules import Listing
from ringfence.model.address import host_network, parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)

OFTEN = 0.06
"""Seconds that most of a child's life lasts at most, while it writes its first tables."""
FRIENDS, IN = SetId("friends"), ProgramId("in")


@dataclass(frozen=True)
class Where:
    """A namespace, and the address of its pod."""

    name: str
    address: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def place(self, uid: str) -> Place:
        return Place(uid, self.path, inode(self.path))


def policy(number: int, governed: Where, fresh: Where, friend: Where) -> NodePolicy:
    """The first or the second one: the second has more rules."""
    more = tuple(
        Rule(f"default/shop/p{number}/r{at}", Action.ALLOW, TCP if at % 2 else UDP,
             (PortRange(1000 + 7 * at, 1000 + 7 * at),), FRIENDS)
        for at in range(20 * (number - 1))
    )  # fmt: skip
    admit = tuple(
        Rule(f"default/shop/p{number}/in", Action.ALLOW, protocol, (PortRange(80, 81),), FRIENDS)
        for protocol in (TCP, UDP)
    )
    last = Rule(f"catch-all/shop/p{number}", Action.DENY, None, (), None)
    return NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {FRIENDS: (host_network(parse_address(friend.address)),)},
        {IN: Program((*more, *admit, last))},
        tuple(
            PodBinding(uid, "shop", uid, (parse_address(pod.address),), (IN,), ())
            for uid, pod in (("governed", governed), ("fresh", fresh))
        ),
        NodeBinding((), None, None, None),
        (),
    )


def write_for_ever(policies: list[NodePolicy], governed: Where, fresh: Where) -> None:
    """What an agent does at its start and at each change, as often as it can."""
    enforcer = Enforcer(Nftables(), listen=TableWatch)
    both = [governed.place("governed"), fresh.place("fresh")]
    revision = 0
    while True:
        nft.remove(fresh.path)
        for one in random.sample(policies, 2):
            revision += 1
            outcome = enforcer.apply(Order(revision, one), both)
            if outcome.problem:
                sys.exit(outcome.problem)


def asked(listed: Listing) -> Listing:
    """The listing with the sets that rules ask in order of their names, and without others.

    Who is killed may leave those behind, what is dropped not silent yet, and packet sockets open.
    """
    silences = {"expr": [{"silence": None}]}.items()
    rules = [
        one
        for one in listed
        if not (
            one.keys() & {"set", "map", "packet_sockets"} or silences <= one.get("rule", {}).items()
        )
    ]
    sets = [body for one in listed for kind, body in one.items() if kind in ("set", "map")]
    sets = [body for body in sets if f"'@{body['name']}'" in repr(rules)]
    return [*rules, *({"set": body} for body in sorted(sets, key=itemgetter("name")))]


def found(where: Where, whole: list[bytes]) -> str:
    """Which rules stand in a namespace."""
    listed = nft.list_table(where.path)
    if listed is None:
        return "none"
    seen = nft.fingerprint(asked(listed))
    if seen in whole:
        return str(whole.index(seen) + 1)
    chains = {body["name"] for one in listed for kind, body in one.items() if kind == "chain"}
    return "broken" if "rf_drop" in chains or nft.judges(where.path) else "tracking"


def main() -> None:
    kills = int(sys.argv[1])
    governed, fresh, friend = (Where(*text.split("=")) for text in sys.argv[2:])
    policies = [policy(number, governed, fresh, friend) for number in (1, 2)]
    whole = []
    places = [governed.place("governed"), fresh.place("fresh")]
    with contextlib.closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        for number, one in enumerate(policies, 1):
            assert not enforcer.apply(Order(number, one), places).problem
            listings = [nft.list_table(where.path) or [] for where in (governed, fresh)]
            whole.append([nft.fingerprint(asked(listed)) for listed in listings])
    print("ready", flush=True)
    for _ in range(kills):
        child = os.fork()
        if not child:
            try:
                write_for_ever(policies, governed, fresh)
            except KernelError as error:
                print(f"failed: {error}", flush=True)
            os._exit(1)
        time.sleep(random.uniform(0, random.choice((OFTEN, OFTEN, 1))))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        how = "killed" if os.WIFSIGNALED(status) else "failed"
        print(
            how,
            found(governed, [one for one, _ in whole]),
            found(fresh, [one for _, one in whole]),
            flush=True,
        )


if __name__ == "__main__":
    main()
