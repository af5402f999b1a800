"""Chains and sets of iptables that a privileged pod changes: noticed, and written again."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.mechanisms import MECHANISMS, Kind, enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel.iptables import IptablesError
from ringfence.kernel.netns import inode
from ringfence.policy.backends.iptables import Iptables
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof import reading_iptables
from ringfence.policy.proof.prove import prove
from ringfence.wire import batch
from tests.kernel.netns import Node, node_with_pods
from tests.kernel.test_backends import footprint, refused
from tests.kernel.test_cut import enforce, policy_of
from tests.kernel.test_enforce import ADMIT, ANYTHING, _changed
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

_KEEPERS: list[Enforcer] = []


def keeper_of(kind: Kind) -> Enforcer:
    """One that hears of nothing more once its test has ended."""
    _KEEPERS.append(enforcer(kind))
    return _KEEPERS[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _KEEPERS:
        _KEEPERS.pop().close()


@pytest.fixture(params=["nft", "legacy"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


@pytest.mark.parametrize(
    "written",
    [
        "{tables} -I INPUT -p tcp --dport 81 -j ACCEPT",
        "{tables} -D INPUT -j RINGFENCE-INPUT",
        "{tables} -R INPUT 1 -p tcp -j RINGFENCE-INPUT",
        "{tables} -I RINGFENCE-INPUT-1 -p udp -j RETURN",
        "{tables} -F RINGFENCE-INPUT-1",
        "{tables} -N RINGFENCE-FOREIGN",
        "{tables} -F",
        "ipset add {friends} 192.0.2.1",
        "ipset flush {friends}",
        "ipset create rf_foreign hash:net",
    ],
)
def test_what_a_pod_writes_into_our_chains_and_sets_goes(
    variant: str, node: Node, written: str
) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    keeper = keeper_of(Kind(f"iptables-{variant}"))
    enforce(keeper, policy, uid=pod)
    listed = keeper.door.list_table(pod.path) or []
    before = keeper.door.fingerprint(listed)
    (friends,) = (s["name"] for found in listed if (s := found.get("set", {})).get("elem")
                  and s["family"] == 4)  # fmt: skip

    tables = f"iptables-{variant} -t mangle"
    assert not _hears(keeper)
    pod.run(*written.format(tables=tables, friends=friends).split())
    told = variant == "nft" and not written.startswith("ipset")
    assert _hears(keeper) == told, "the kernel tells of chains of nft alone"
    assert _changed(keeper)
    enforce(keeper, policy, uid=pod)
    assert keeper.door.fingerprint(keeper.door.list_table(pod.path) or []) == before

    with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"denied", (pod.address, 53))
    assert not _changed(keeper)
    ((drops, _),) = keeper.ledger.take()
    (row,) = batch.decode(batch.DROPS, drops).to_pylist()
    assert (row["provider_port"], row["packets"]) == (53, 1)


def replaced(place: str = "", more: str = "") -> str:
    """The commands that put another chain in the place of INPUT, which calls ours too."""
    return f"""\
flush chain ip mangle INPUT
delete chain ip mangle INPUT
add chain ip mangle INPUT {place}
add rule ip mangle INPUT counter jump RINGFENCE-INPUT
{more}"""


MOVED = [
    "",
    "{ type filter hook input priority 0; }",
    "{ type filter hook forward priority -150; }",
]
THEIRS = "add rule ip mangle INPUT tcp dport 9 accept"
CALLED = "add chain ip mangle x\nadd rule ip mangle x jump INPUT"


@pytest.mark.parametrize("place", MOVED)
def test_a_chain_that_has_lost_its_place_gets_it_back(node: Node, place: str) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    keeper = keeper_of(Kind.IPTABLES_NFT)
    enforce(keeper, policy, uid=pod)
    before = keeper.door.fingerprint(keeper.door.list_table(pod.path) or [])
    pod.nft(replaced(place, "add chain ip mangle FORWARD { type filter hook forward priority 9; }"))
    with tcp_echo(pod, pod.address, 82):
        assert _changed(keeper)
        outcome = keeper.apply(Order(2, policy), [Place("uid", pod.path, inode(pod.path))])
        assert outcome.programmed, outcome.problem
        assert refused(friend, pod.address, 82)
    assert keeper.door.fingerprint(keeper.door.list_table(pod.path) or []) == before
    assert "filter + 9" in pod.run("nft", "list", "chain", "ip", "mangle", "FORWARD")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("add table ip mangle { flags dormant; }", "no packet meets INPUT"),
        (replaced("", THEIRS), "chain INPUT"),
        (replaced("", CALLED), "INPUT"),
        (replaced("{ type filter hook input priority 0; policy drop; }"), "chain INPUT"),
    ],
)
def test_what_no_packet_meets_is_told_where_others_have_a_say(
    node: Node, written: str, told: str
) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    keeper = keeper_of(Kind.IPTABLES_NFT)
    enforce(keeper, policy, uid=pod)
    pod.nft(written)
    listed = keeper.door.list_table(pod.path) or []
    with suppress(UnprovableError):
        assert prove(policy, policy.pods[0], listed, reading_iptables.read).differing
    assert _changed(keeper)
    outcome = keeper.apply(Order(2, policy), [Place("uid", pod.path, inode(pod.path))])
    assert told in outcome.problem
    assert not outcome.programmed


def test_each_change_is_in_force_and_its_old_sets_are_gone(variant: str, node: Node) -> None:
    friend, pod = node.pods
    keeper = keeper_of(Kind(f"iptables-{variant}"))
    enforce(keeper, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    before = sorted(footprint(pod))
    with tcp_echo(pod, pod.address, 81):
        assert refused(friend, pod.address, 81)
        enforce(keeper, policy_of(pod, ANYTHING, ANYTHING, friend), uid=pod)
        tcp_exchange(friend, pod.address, 81, b"hello")
    enforce(keeper, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    assert sorted(footprint(pod)) == before


def test_legacy_rules_go_where_there_is_no_nftables(node: Node) -> None:
    """In a process that finds an empty file in the place of the library, behind a mount of it."""
    friend, pod = node.pods
    keeper = keeper_of(Kind.IPTABLES_LEGACY)
    enforce(keeper, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    there = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    library = there.partition("libnftables.so.1 ")[2].split()[2]
    remove = (
        "import sys, pathlib; from ringfence.kernel import iptables, nft\n"
        "assert not nft.usable(); iptables.LEGACY.remove(pathlib.Path(sys.argv[1]))"
    )
    script = 'mount --bind /dev/null "$1" && exec "$2" -c "$3" "$4"'
    words = ["unshare", "--mount", "sh", "-ec", script, "sh", library, sys.executable, remove]
    done = subprocess.run([*words, str(pod.path)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert keeper.door.list_table(pod.path) is None


def test_if_one_family_is_refused_both_stay_as_they_were(variant: str, node: Node) -> None:
    friend, pod = node.pods
    keeper = keeper_of(Kind(f"iptables-{variant}"))
    enforce(keeper, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    before = sorted(footprint(pod))
    other = Iptables().render_pod(
        *((made := policy_of(pod, ANYTHING, ADMIT, friend)), made.pods[0])
    )
    commands = Iptables().transaction(other, None)
    four, _, six = commands.rpartition("# IPv6\n")
    broken = six.replace("-j RETURN", "-j NOWHERE", 1)
    assert broken != six
    with pytest.raises(IptablesError, match="ip6tables"):
        keeper.door.apply(pod.path, f"{four}# IPv6\n{broken}")
    assert sorted(footprint(pod)) == before
    assert not _changed(keeper)


def test_rules_that_cannot_be_said_leave_the_old_ones(variant: str, node: Node) -> None:
    friend, pod = node.pods
    keeper = keeper_of(Kind(f"iptables-{variant}"))
    enforce(keeper, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    before = sorted(footprint(pod))
    hopopt = type(ANYTHING)((*[type(r)(r.handle, r.action, 0, (), None) for r in ANYTHING.rules],
                             *ANYTHING.rules))  # fmt: skip
    place = Place("uid", pod.path, inode(pod.path))
    outcome = keeper.apply(Order(2, policy_of(pod, hopopt, ANYTHING, friend)), [place])
    assert "protocol 0" in outcome.problem
    assert not outcome.programmed
    assert sorted(footprint(pod)) == before


def test_another_interface_that_is_called_lo_is_noticed(variant: str, node: Node) -> None:
    friend, pod = node.pods
    keeper: Enforcer = keeper_of(Kind(f"iptables-{variant}"))
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    enforce(keeper, policy, uid=pod)
    for change in (
        ("lo", "down"), ("lo", "name", "other"), ("other", "up"),
        ("eth0", "down"), ("eth0", "name", "lo"), ("lo", "up"),
    ):  # fmt: skip
        pod.run("ip", "link", "set", *change)
    assert _changed(keeper)
    outcome = keeper.apply(Order(2, policy), [Place("uid", pod.path, inode(pod.path))])
    assert "called lo is not the loopback" in outcome.problem
    assert MECHANISMS[Kind(f"iptables-{variant}")].door.judges(pod.path)


@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_what_is_changed_in_chains_of_nft_is_heard_at_once(node: Node, tool: str) -> None:
    friend, pod = node.pods
    keeper = keeper_of(Kind.IPTABLES_NFT)
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    enforce(keeper, policy, uid=pod)
    pod.run(f"{tool}-nft", "-t", "mangle", "-S")
    pod.run(f"{tool}-nft", "-t", "filter", "-N", "others")
    assert not _hears(keeper)
    pod.run(f"{tool}-nft", "-t", "mangle", "-D", "INPUT", "-j", "RINGFENCE-INPUT")
    assert _hears(keeper)
    enforce(keeper, policy, uid=pod)
    assert not _hears(keeper)


def _hears(keeper: Enforcer) -> bool:
    keeper.hear()
    return keeper.tampered
