"""The door to iptables and ipset: chains of our own in the mangle table, and sets of our own.

What is loaded is text of `policy.backends.iptables`. New sets come first, under names that no
rule knows; then the rules, in one transaction for each family; then the sets that no rule asks any
more go. IPv4 changes before IPv6. If the kernel refuses one, what was there before is put back.
"""

import fcntl
import hashlib
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ringfence.kernel import ipset, nft, silence
from ringfence.kernel.errors import KernelError
from ringfence.kernel.netns import run_in
from ringfence.kernel.rules import Drops, Listing
from ringfence.model.address import parse_address
from ringfence.model.protocol import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP

_FAMILIES = {4: "ip", 6: "ip6"}
"""With what the names of their tools and tables begin."""
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_PLACES = {
    hook: nft.Place("route" if hook == "OUTPUT" else "filter", hook.lower(), -150)
    for hook in _HOOKS
}
_OURS = "RINGFENCE-"
_MADE = f"{_OURS}MADE-"
"""Empty chains of ours that tell what was not there before: a chain of mangle, or `TABLE`."""
_TRACK = f"{_OURS}TRACK"
_TRACKING = (
    f"*mangle\n:{_TRACK} - [0:0]\n-A {_TRACK} -m conntrack --ctstate ESTABLISHED -j RETURN\n"
    f"-I PREROUTING -j {_TRACK}\nCOMMIT\n"
)
_LOCK_SECONDS = "5"
_RELEASE_SECONDS = 1.0
"""How long the kernel may hold sets for rules of iptables-nft that are gone already."""
_LEAVES = re.compile(r" -(?:j|g) (\S+)")
_PROTOCOL = re.compile(r"(?<= -p )\S+")
_SET = re.compile(rf"\b{ipset.PREFIX}\w+")
_NAMED = {"icmpv6": ICMPV6, "ipv6-icmp": ICMPV6, "mh": 135, "all": 0}
"""Protocols that iptables may call by other names than /etc/protocols."""
_HAVE_PORTS = (TCP, UDP, SCTP, ICMP, ICMPV6, DCCP)
_DROPPED = re.compile(rf"{_OURS}DROP-([0-9a-f]{{8}})")
_LOST = f"-g {_OURS}DROP", f"-g {_OURS}SILENCE"
"""The last rule of a chain that remembers, either of them: what found no room."""
_QUEUES = " -j NFQUEUE "
_SIOCGIFHWADDR, _ARPHRD_LOOPBACK = 0x8927, 772


class IptablesError(KernelError):
    """iptables refused a command, or is missing, or holds what nobody of us wrote there."""


@dataclass(frozen=True)
class _Mangle:
    """The mangle table of one family, as far as it is ours."""

    chains: tuple[str, ...] = ()
    rules: tuple[tuple[int, int, str], ...] = ()
    """Of our chains in order, each with its packets and bytes."""
    jumps: tuple[tuple[bool, str], ...] = ()
    """To our chains, each with whether none but ours is ahead of it."""
    called: Collection[str] = ()
    """The built-in chains that the kernel calls."""

    @property
    def judging(self) -> tuple[str, ...]:
        """The chains that do something."""
        return tuple(name for name in self.chains if not name.startswith(_MADE))

    def text(self) -> str:
        """What loads it again."""
        heads = "".join(f":{name} - [0:0]\n" for name in self.judging)
        rules = "".join(f"{rule}\n" for _, _, rule in self.rules)
        jumps = "".join(f"-I{rule.removeprefix('-A')}\n" for _, rule in reversed(self.jumps))
        return f"*mangle\n{heads}{rules}{jumps}COMMIT\n"


class Iptables:
    """One variant of iptables: `legacy`, or `nft`, which keeps its rules in nftables."""

    def __init__(self, variant: str) -> None:
        self._variant = variant

    def usable(self) -> bool:
        """Whether its tools are installed, and may ask over raw sockets what the kernel knows."""
        tools = *(f"{name}tables-{self._variant}-restore" for name in _FAMILIES.values()), "ipset"
        try:
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
        except PermissionError:
            return False
        return all(map(shutil.which, tools))

    def apply(self, netns_path: Path, commands: str) -> None:
        """Load what the back end wrote; raises KernelError, and then all is as it was."""
        if commands:
            run_in(netns_path, lambda: self._apply(_parts(commands)))

    def remove(self, netns_path: Path) -> None:
        """Take our chains and sets away, if they are there; raises KernelError.

        The kernel keeps an empty legacy mangle table once it was asked for one.
        """
        run_in(netns_path, self._remove)

    def start_tracking(self, netns_path: Path) -> None:
        """Track connections from now on, with a chain that lets everything pass.

        Does nothing where our chains stand already. Raises KernelError.
        """

        def track() -> None:
            if not any(self._mangle(family).judging for family in _FAMILIES):
                self._apply({"sets": "", "IPv4": _TRACKING, "IPv6": _TRACKING})

        run_in(netns_path, track)

    def judges(self, netns_path: Path) -> bool:
        """Whether our chains stand in a namespace and do more than to track."""
        found = run_in(netns_path, lambda: [self._mangle(family).judging for family in _FAMILIES])
        return any(set(chains) - {_TRACK} for chains in found)

    def list_table(self, netns_path: Path, *, elements: bool = True) -> Listing | None:
        """Our chains, their rules, the jumps to them and our sets, None if there are none.

        Without `elements` the kernel is not asked what the sets hold.
        """
        return run_in(netns_path, lambda: self._list(elements=elements))

    def fingerprint(self, table: Listing, *, elements: bool = True) -> bytes:
        """The listing without counters and what drop sets hold.

        Without `elements` also without what the other sets hold.
        """
        kept = []
        for found in table:
            for kind, body in found.items():
                counted = ("packets", "bytes", "references")
                fixed = {name: value for name, value in body.items() if name not in counted}
                if kind == "set":
                    held = [] if not elements or "timeout" in body else body.get("elem", ())
                    fixed["elem"] = sorted(map(msgspec.json.encode, held))
                kept.append({kind: fixed})
        return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).digest()

    def read_drops(self, objects: Listing, sets: Collection[str]) -> Drops:
        """What the drop sets of these names hold, from `list_table`.

        Raises IptablesError where they hold something else: a privileged pod can write into them.
        """
        try:
            return _read_drops(objects, sets)
        except (TypeError, LookupError, ValueError, OverflowError) as error:
            raise IptablesError(
                f"drop sets hold what no rule of ours puts there: {error!r}"
            ) from error

    # In the thread's namespace

    def _apply(self, parts: dict[str, str]) -> None:
        if self._variant == "nft":  # which leaves chains of mangle where it finds them
            for family, name in _FAMILIES.items():
                asked = f"\n{parts[f'IPv{family}']}"
                places = {h: place for h, place in _PLACES.items() if f"\n-I {h} -j" in asked}
                nft.delete_misplaced(name, "mangle", places, _OURS)
        before = {family: self._mangle(family) for family in _FAMILIES}
        wanted = {family: parts[f"IPv{family}"] for family in _FAMILIES}
        done: list[int] = []
        try:
            _load_sets(parts["sets"])
            for family, text in wanted.items():
                self._replace(family, before[family], text, self._making(family, before[family]))
                done.append(family)
        except KernelError:
            for family in done:
                self._replace(family, self._mangle(family), before[family].text(), ())
            with suppress(KernelError):
                _destroy_but("".join(mangle.text() for mangle in before.values()))
            raise
        _destroy_but("".join(wanted.values()))

    def _replace(self, family: int, before: _Mangle, text: str, made: Collection[str]) -> None:
        """Put rules in the place of those before, in one transaction."""
        table, _, rest = text.partition("\n")
        mentioned = {line.split()[0][1:] for line in rest.splitlines() if line.startswith(":")}
        gone = [name for name in before.judging if name not in mentioned]
        lines = [
            table,
            *(f":{name} - [0:0]" for name in (*gone, *made)),
            *(f"-D{rule.removeprefix('-A')}" for _, rule in before.jumps),
            *rest.removesuffix("COMMIT\n").splitlines(),
            *(f"-X {name}" for name in gone),
            "COMMIT",
        ]
        # All of ours are emptied by their mention before any of them goes.
        heads = [line for line in lines if line.startswith(":")]
        others = [line for line in lines[1:] if not line.startswith(":")]
        self._restore(family, "".join(f"{line}\n" for line in (table, *heads, *others)))

    def _making(self, family: int, before: _Mangle) -> list[str]:
        """The names of empty chains that tell what of mangle is not there yet.

        Only iptables-nft needs them: the kernel has all of a legacy table, or nothing.
        """
        if self._variant != "nft" or before.chains:
            return []
        there = {chain["name"] for chain in nft.chains(_FAMILIES[family], "mangle")}
        return [
            *(f"{_MADE}{hook}" for hook in _HOOKS if hook not in there),
            *([] if there else [f"{_MADE}TABLE"]),
        ]

    def _remove(self) -> None:
        there = False
        for family, name in _FAMILIES.items():
            before = self._mangle(family)
            there |= bool(before.chains)
            if before.chains:
                lines = [f":{chain} - [0:0]" for chain in before.chains]
                lines += (f"-D{rule.removeprefix('-A')}" for _, rule in before.jumps)
                lines += (f"-X {chain}" for chain in before.chains)
                self._restore(family, "".join(f"{one}\n" for one in ("*mangle", *lines, "COMMIT")))
                made = [n.removeprefix(_MADE) for n in before.chains if n.startswith(_MADE)]
                if made:
                    nft.delete_unused(name, "mangle", made)
        _destroy_but("", _RELEASE_SECONDS if there else 0)

    def _list(self, *, elements: bool) -> Listing | None:
        found: Listing = []
        for family in _FAMILIES:
            mangle = self._mangle(family)
            found += ({"chain": {"family": family, "name": name}} for name in mangle.judging)
            for first, rule in mangle.jumps:
                told = {"text": rule, "first": first, "called": rule.split()[1] in mangle.called}
                found.append({"jump": {"family": family, **told}})
            for packets, size, rule in mangle.rules:
                counted = {"packets": packets, "bytes": size}
                found.append({"rule": {"family": family, "text": rule, **counted}})
        found += ({"set": held} for held in ipset.list_sets(elements=elements))
        return [{"lo": {"loopback": _lo_is_the_loopback()}}, *found] if found else None

    def _mangle(self, family: int) -> _Mangle:
        called = self._called(family)
        if called is None:
            return _Mangle()
        chains, rules = [], []
        jumps: dict[str, list[tuple[bool, str]]] = {hook: [] for hook in _HOOKS}
        for line in self._save(family):
            if line.startswith(f":{_OURS}"):
                chains.append(line[1:].split()[0])
            if not line.startswith("["):
                continue
            counters, _, rule = line.partition(" ")
            chain = rule.split()[1]
            rule = _PROTOCOL.sub(_number_of, rule)
            if chain.startswith(_OURS):
                packets, size = counters.strip("[]").split(":")
                rules.append((int(packets), int(size), rule))
            elif chain in jumps:
                ours = (leaves := _LEAVES.search(rule)) and leaves[1].startswith(_OURS)
                jumps[chain].append((bool(ours), rule))
        placed = (each for held in jumps.values() for each in _placed(held))
        return _Mangle(tuple(chains), tuple(rules), tuple(placed), called)

    def _called(self, family: int) -> Collection[str] | None:
        """The built-in chains that the kernel calls, None without a mangle table.

        iptables-nft also shows plain chains of their names, and a table that is dormant.
        """
        if self._variant == "nft":
            chains = nft.chains(_FAMILIES[family], "mangle")
            asleep = nft.table_flags(_FAMILIES[family], "mangle")
            hooked = [chain["name"] for chain in chains if "hook" in chain and not asleep]
            return hooked if chains else None
        # To ask a legacy tool would make the table.
        names = Path(f"/proc/thread-self/net/{_FAMILIES[family]}_tables_names")
        return _HOOKS if names.exists() and "mangle" in names.read_text().split() else None

    def _save(self, family: int) -> list[str]:
        tool = f"{_FAMILIES[family]}tables-{self._variant}-save"
        return _run([tool, "-c", "-t", "mangle"], "").splitlines()

    def _restore(self, family: int, text: str) -> None:
        restore = [f"{_FAMILIES[family]}tables-{self._variant}-restore", "--noflush", "--wait"]
        try:
            _run([*restore, _LOCK_SECONDS], text)
        except IptablesError as error:
            heard = "".join(line for line in text.splitlines(True) if _QUEUES not in line)
            if heard == text:
                raise
            _run([*restore, _LOCK_SECONDS], heard)  # else whatever is wrong is told
            silence.tell(str(error))


def _parts(commands: str) -> dict[str, str]:
    """The parts of what the back end writes, by their titles."""
    parts = {"sets": "", "IPv4": "", "IPv6": ""}
    for part in commands.split("# ")[1:]:
        title, _, text = part.partition("\n")
        parts[title] = text
    return parts


def _load_sets(commands: str) -> None:
    """Make sets and fill them; what has its name already gives it up in one instant."""
    if not commands:
        return
    there = {held["name"] for held in ipset.list_sets(elements=False)}
    taken = {line.split()[1] for line in commands.splitlines() if line.startswith("create")} & there
    swapped = {name: f"{ipset.PREFIX}new_{place}" for place, name in enumerate(sorted(taken))}
    if taken:
        ipset.destroy(there & set(swapped.values()))
        words = (line.split(" ", 2) for line in commands.splitlines())
        commands = "".join(f"{verb} {swapped.get(n, n)} {rest}\n" for verb, n, rest in words)
        commands += "".join(f"swap {new} {name}\n" for name, new in swapped.items())
    ipset.restore(commands)
    ipset.destroy(swapped.values())


def _destroy_but(rules: str, seconds: float = _RELEASE_SECONDS) -> None:
    """Take away the sets of ours that these rules do not mention, and no others ask."""
    named = set(_SET.findall(rules))
    until = time.monotonic() + seconds
    while True:
        held = [one for one in ipset.list_sets(elements=False) if one["name"] not in named]
        ipset.destroy(one["name"] for one in held if not one["references"])
        if time.monotonic() >= until or not any(one["references"] for one in held):
            return
        time.sleep(0.005)


def _placed(rules: list[tuple[bool, str]]) -> Iterator[tuple[bool, str]]:
    """The jumps of a chain to ours, each with whether it is among the first that are."""
    ahead = sum(1 for _ in takewhile(lambda rule: rule[0], rules))
    return ((at < ahead, rule) for at, (ours, rule) in enumerate(rules) if ours)


def _number_of(name: re.Match[str]) -> str:
    if name[0].isdecimal():
        return name[0]
    with suppress(OSError):
        return str(_NAMED[name[0]] if name[0] in _NAMED else socket.getprotobyname(name[0]))
    return name[0]


def _lo_is_the_loopback() -> bool:
    """Whether rules that ask for `lo` mean the loopback: a privileged pod may rename it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, suppress(OSError):
        told = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("16sH22x", b"lo", 0))
        return bool(struct.unpack_from("16xH", told)[0] == _ARPHRD_LOOPBACK)
    return False


def _read_drops(objects: Listing, sets: Collection[str]) -> Drops:
    keys: list[tuple[int, dict[str, Any]]] = []
    overflow: dict[int, int] = {}
    for found in objects:
        if (held := found.get("set", {})).get("name") in sets:
            mark = int(held["name"].split("_")[2], 16)
            keys += ((mark, element) for element in held.get("elem", ()))
        if rule := found.get("rule"):
            chain, *rest = rule["text"].removeprefix("-A ").split(" ", 1)
            if (dropped := _DROPPED.fullmatch(chain)) and rest[0] in _LOST and rule["packets"]:
                mark = int(dropped[1], 16)
                overflow[mark] = overflow.get(mark, 0) + rule["packets"]
    each = [element for _, element in keys]

    def addresses(end: str) -> bytes:
        return b"".join(parse_address(element[end]) for element in each)

    return Drops(
        mark=np.array([mark for mark, _ in keys], dtype=np.uint32),
        protocol=np.array([element["proto"] for element in each], dtype=np.uint8),
        source=np.frombuffer(addresses("ip"), dtype=np.uint8).reshape(-1, 16),
        destination=np.frombuffer(addresses("ip2"), dtype=np.uint8).reshape(-1, 16),
        port=np.array(
            [element["port"] if element["proto"] in _HAVE_PORTS else 0 for element in each],
            dtype=np.uint16,
        ),
        packets=np.array([element["packets"] for element in each], dtype=np.uint64),
        expires=np.array([element["timeout"] for element in each], dtype=np.uint32),
        overflow=overflow,
    )


def _run(argv: list[str], stdin: str) -> str:
    try:
        return subprocess.run(
            argv, input=stdin, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
    except OSError as error:
        raise IptablesError(
            f"{argv[0]}: {error.strerror}; install iptables (Debian, Ubuntu)"
        ) from error
    except subprocess.CalledProcessError as error:
        raise IptablesError(f"{argv[0]} refused: {error.stderr.strip()}") from error


LEGACY, NFT = Iptables("legacy"), Iptables("nft")
