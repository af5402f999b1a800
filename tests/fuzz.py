"""Broken filters and policy files, made from sound ones: parsers refuse them, and in no time.

    .venv/bin/python -m tests.fuzz filters 1000000

tries that many inputs, the same ones for the same --seed, and prints what became of them. A
parser may raise its documented error alone; what it does read says the same once printed.
"""

import argparse
import faulthandler
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ringfence.control.apply import decide
from ringfence.model.errors import InputError
from ringfence.model.query import matches, parse
from ringfence.policy.document import Documents, format_documents, parse_documents

SLOW_S = 2.0
"""An input that takes more of the processor counts as a hang."""
_STUCK_S = 300

FILTERS = (
    'kubernetes.namespace = "shop" and kubernetes.label.app in ("carts", "orders")',
    'not vuln.cvss >= 9 or address subnet "10.0.0.0/8" and user.env exists',
    'name matches "^api-[0-9]+(x|y)*$" and not (a != "b" or c contains "\\u00e9\\n")',
    "everything",
    'a = "1" and (b < -2.5 or not not c exists) and d IN ("x") OR e MATCHES "(?i)z{2,3}"',
    'address subnet "fd00::/8" or address subnet "::ffff:10.0.0.1"',
)
DOCUMENTS = (
    """\
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec:
  parent: east
  query: kubernetes.namespace = "shop"
  order: 3
""",
    """\
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata:
  name: shop
spec:
  scope: shop
  primary: true
  catchAll: {inbound: DENY, outbound: ALLOW}
  clusters:
  - name: front
    query: kubernetes.label.app = "front-end"
  policies:
  - id: a
    description: "front to carts"
    action: ALLOW
    rank: absolute
    priority: 7
    consumer: {cluster: front}
    provider: {service: shop/carts, kubernetesCluster: east}
    protocol: TCP
    ports: [80, 8000-8100]
  - id: b
    action: DENY
    consumer: {cidr: [10.0.0.0/8, "fd00::/8"], except: [10.1.0.0/16]}
    provider: {filter: name matches "x.*"}
    protocol: any
  - {id: c, action: ALLOW, consumer: {node: own}, provider: {scope: shop}, protocol: ICMP}
  - {id: d, action: ALLOW, consumer: {scope: shop}, provider: {fqdn: "*.example.org"}, protocol: 17}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: east}
spec: {query: everything}
""",
)
_WORDS = r"""
( ) [ ] { } " ' \ , : # - ? | > &a *a << !! !!python/object:os.system !!binary %YAML --- ...
and or not in exists matches contains subnet everything != >=
0 -1 65536 1e999 nan inf 999999999999999999999 0x10 1_000 012 null ~ yes .inf 2001-01-01
10.0.0.0/33 ::/129 0.0.0.0/0 1.2.3 \ud800 \U00110000 9999-12-31T23:59:59-01:00 \u0000 é ٣
(a*)* (?:(?:(?:(?: a{1000}{1000} [[:alpha:]] \p{Greek} (?P<n> (?!x) \C
"""
_SPACES = ("\n", "\t", "\n- ", "\n---\n", "\x00", "\ufeff", "\ud800", "\u2028", "\x85")
_LONG = (
    "(" * 200,
    "not " * 200,
    "[" * 2000,
    "{a: " * 500,
    "- " * 500,
    '"a" or ' * 99,
    "x" * 70_000,
)
_HOSTILE = (*_WORDS.split(), *_SPACES, *_LONG)


@dataclass(frozen=True)
class Target:
    """A parser: `read` raises InputError for what is not sound, and returns what is, printed."""

    seeds: Sequence[str]
    read: Callable[[str], str]


def _filter(text: str) -> str:
    query = parse(text)
    matches(query, {"name": ("api-1",), "address": ("10.0.0.1", "::"), "vuln.cvss": ("9.8", "x")})
    return str(query)


def _documents(text: str) -> str:
    read = parse_documents(text, "fuzz.yaml")
    with suppress(InputError):
        decide(Documents(), read)
    return format_documents(read)


TARGETS = {"filters": Target(FILTERS, _filter), "documents": Target(DOCUMENTS, _documents)}


def mutate(chance: random.Random, seeds: Sequence[str]) -> str:
    """A sound text with a few parts cut, doubled, moved, or replaced by something hostile."""
    text = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        first = chance.randrange(len(text) + 1)
        last = min(len(text), first + int(chance.expovariate(1 / 6)))
        part = chance.choice(
            ("", "", text[first:last] * 2, chance.choice(_HOSTILE), chance.choice(_HOSTILE))
        )
        if chance.random() < 0.2:
            other = chance.choice(seeds)
            begin = chance.randrange(len(other))
            part = other[begin : begin + chance.randrange(40)]
        elif chance.random() < 0.1:
            part = chr(chance.choice((chance.randrange(128), chance.randrange(0x110000))))
        text = text[:first] + part + text[last:]
    return text


def run(target: Target, count: int, seed: int) -> Counter[str]:
    """How many of the inputs were read, and how many refused; fails at the first other outcome."""
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        text = mutate(chance, target.seeds)
        faulthandler.dump_traceback_later(_STUCK_S, exit=True)
        begun = time.process_time()
        try:
            printed = target.read(text)
        except InputError as error:
            outcomes["refused"] += 1
            str(error).encode(errors="surrogatepass")
        except Exception as error:
            raise AssertionError(f"{text[:3000]!r} of {len(text)} letters") from error
        else:
            assert target.read(printed) == printed, repr(text[:3000])
            outcomes["read"] += 1
        took = time.process_time() - begun
        assert took < SLOW_S, f"{took:.1f} s for {text[:3000]!r} of {len(text)} letters"
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def main() -> None:
    """Try as many inputs as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.perf_counter()
    outcomes = run(TARGETS[given.target], given.count, given.seed)
    took = time.perf_counter() - begun
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{given.target}: {given.count:,} inputs in {took:,.0f} s: {told}")


if __name__ == "__main__":
    main()
