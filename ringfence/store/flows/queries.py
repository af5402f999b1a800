"""The questions put to the flow store, as ClickHouse SQL. Every value is a bound parameter.

HOPS is what everything else reads. It never adds observers together: of all that saw a tuple
the best-placed one counts, summed over its windows. Drop reports join by the tuple that was
dropped, and stand as hops of their own where nothing else saw the connection. Drops of TCP
packets that open nothing are left out: they tell of no attempt to connect. So are those of pods
that wait for their rules: no policy judged them.

Only an agent on an end's node knows its process: what any observer of a tuple tells of it counts,
of several processes the one with the lowest PID.

What was seen inside a tunnel is one more observer of its tuple; `tunnel_*` of a hop is the tunnel's
own tuple, and `carries` of the tunnel's hop how many conversations one observer saw inside of it in
one window.
"""

# ruff: noqa: S608 -- only this file's own fragments and `filter.Condition` are put together

from ringfence.policy.handle import MID_STREAM, NEW_POD
from ringfence.store.flows.tables import holder_parts

_TUPLE = (
    "kubernetes_cluster, protocol, consumer, consumer_item, provider, provider_item, provider_port"
)
_HOP = f"{_TUPLE}, first_consumer, first_consumer_item, dialled, dialled_item, dialled_port"
_SAME = ", ".join(f"any({name}) AS {name}" for name in ["connection", *_HOP.split(", ")])
"""What the rows of one `hop`, which is its hash, have in common."""
CONSUMER_PORTS = 64
"""How many a hop has at most; it is one hop, whether or not agents told its consumer's ports."""
_HOLDERS = ("consumer_holder", "provider_holder")
_LEAST_HOLDERS = ", ".join(f"min({name}) AS {name}" for name in _HOLDERS)
_PROCESSES = holder_parts("consumer", _HOLDERS[0]) | holder_parts("provider", _HOLDERS[1])
BETWEEN = (
    "tenant = {tenant:String} AND window_end_ns > {since:Int64} AND window_end_ns <= {until:Int64}"
)
"""A row belongs to the range in which its window ended: ranges side by side share none."""
IN_HOURS = (
    "tenant = {tenant:String} AND toUnixTimestamp(hour) * 1000000000 < {until:Int64}"
    " AND (toUnixTimestamp(hour) + 3600) * 1000000000 > {since:Int64}"
)
"""The hours of the roll-ups that have a part of the range."""
_SUMS = [
    *(
        f"{way}_{count}"
        for way in ("forward", "reverse")
        for count in ("packets", "bytes", "syn", "fin", "rst", "retransmitted")
    ),
    "opened",
    "answered",
    "refused",
    "rtt_samples",
    "rtt_sum_ns",
]
_BEST = [
    *_SUMS,
    "rtt_min_ns",
    "forward_flags",
    "reverse_flags",
    "consumer_ports",
    "method",
    "node",
    "consumer_revision",
    "provider_revision",
    "first_consumer_revision",
    "dialled_revision",
    "consumer_node",
    "provider_node",
]

# Elsewhere than on its consumer's own node a tuple may be a translated one without its being
# known. While that node has an agent, what others saw is evidence of arrival and no more. An agent
# is there for the slots of time that its windows touch, and the one after: its reports may be late.
_SLOT_NS = 300 * 10**9
_HOUR_NS = 3600 * 10**9
_LONGEST_NS = 24 * _HOUR_NS
"""How far back from its end a window counts."""
_SLOT = f"intDiv(window_end_ns - 1, {_SLOT_NS})"
_HOUR = f"intDiv(toUnixTimestamp(hour) * 1000000000, {_HOUR_NS})"


def _remote(slot: str, slot_ns: int) -> str:
    """Whether a row was seen elsewhere while its consumer's node had an agent."""
    return f"""
consumer_node != node AND (kubernetes_cluster, consumer_node, {slot}) IN (
    SELECT DISTINCT kubernetes_cluster, node, arrayJoin(range(
        intDiv(greatest(window_start_ns, window_end_ns - {_LONGEST_NS}), {slot_ns}),
        intDiv(window_end_ns - 1 + {_SLOT_NS}, {slot_ns}) + 1
    ))
    FROM batches
    WHERE tenant = {{tenant:String}} AND window_start_ns < {{until:Int64}} + {slot_ns}
        AND window_end_ns >= {{since:Int64}} - {slot_ns + _SLOT_NS}
)
"""


_REMOTE = _remote(_SLOT, _SLOT_NS)
_REMOTEIN_HOURS = _remote(_HOUR, _HOUR_NS)
_REVISIONS = [name for name in _BEST if name.endswith("_revision")]
TUNNEL_COLUMNS = ("tunnel_protocol", "tunnel_consumer", "tunnel_provider", "tunnel_port")
"""The own tuple of the tunnel that carries a hop, the protocol being 0 where none does."""


def _told(slot: str) -> str:
    """What tells the slot of a row, if anything does."""
    return f"{slot} AS slot," if slot else ""


def _also(slot: str) -> str:
    return ", slot" if slot else ""


def _observed(slot: str = "") -> str:
    return f"""
SELECT hop, {_SAME}, node, interface, {_told(slot)}
    min(rank) AS rank, {_REMOTE} AS remote, toUInt64(0) AS dropped,
    max(at_consumer) AS at_consumer, max(at_provider) AS at_provider,
    {", ".join(f"sum({name}) AS {name}" for name in _SUMS)},
    minIf(rtt_min_ns, rtt_samples > 0) AS rtt_min_ns,
    groupBitOr(forward_flags) AS forward_flags, groupBitOr(reverse_flags) AS reverse_flags,
    groupUniqArrayIf({CONSUMER_PORTS})(consumer_port, consumer_port != 0) AS consumer_ports,
    argMin(method, indexOf(['syn', 'socket', 'service', 'degree'], method)) AS method,
    argMaxIf(provider_dns_name, last_ns, provider_dns_name != '') AS provider_dns_name,
    {", ".join(f"argMinIf({name}, first_ns, {name} != 0) AS {name}" for name in _REVISIONS)},
    max(consumer_node) AS consumer_node, max(provider_node) AS provider_node,
    argMaxIf(({", ".join(TUNNEL_COLUMNS)}), forward_packets, tunnel_protocol != 0) AS tunnel,
    max(carries) AS carries, {_LEAST_HOLDERS},
    min(first_ns) AS first_ns, max(last_ns) AS last_ns
FROM flows WHERE {BETWEEN}
GROUP BY hop, node, interface, remote{_also(slot)}
"""


def _dropped(slot: str = "") -> str:
    return f"""
SELECT hop, any(connection) AS connection,
    {", ".join(f"any({name}) AS {name}" for name in _TUPLE.split(", "))},
    any(consumer) AS first_consumer, any(consumer_item) AS first_consumer_item,
    any(provider) AS dialled, any(provider_item) AS dialled_item,
    any(provider_port) AS dialled_port, min(node) AS node, toUInt32(0) AS interface,
    {_told(slot)} toUInt8(255) AS rank, true AS remote, sum(packets) AS dropped,
    false AS at_consumer, false AS at_provider,
    {", ".join(f"toUInt64(0) AS {name}" for name in [*_SUMS, "rtt_min_ns"])},
    toUInt16(0) AS forward_flags, toUInt16(0) AS reverse_flags,
    emptyArrayUInt16() AS consumer_ports, '' AS method, '' AS provider_dns_name,
    max(consumer_revision) AS consumer_revision, max(provider_revision) AS provider_revision,
    max(consumer_revision) AS first_consumer_revision,
    max(provider_revision) AS dialled_revision,
    '' AS consumer_node, '' AS provider_node,
    (toUInt8(0), toIPv6('::'), toIPv6('::'), toUInt16(0)) AS tunnel, toUInt32(0) AS carries,
    {", ".join(f"CAST(NULL, 'Nullable(String)') AS {name}" for name in _HOLDERS)},
    min(first_ns) AS first_ns, max(last_ns) AS last_ns
FROM drops WHERE {BETWEEN} AND rule NOT IN ('{MID_STREAM}', '{NEW_POD}')
GROUP BY hop{_also(slot)}
"""


# Not remote before remote, then by rank, then the fullest: one number, for tuples compare slowly.
_MOST_PACKETS = 2**55 - 1
_PLACE = f"""
bitShiftLeft(toUInt64(remote), 63) + bitShiftLeft(toUInt64(rank), 55)
    + toUInt64({_MOST_PACKETS} - least(forward_packets, {_MOST_PACKETS}))
"""


def _by_hop(slot: str = "") -> str:
    return f"""
SELECT hop, {_SAME}{_also(slot)}, min(remote) AS remote,
    {", ".join(f"argMin({name}, {_PLACE}) AS {name}" for name in _BEST)},
    sum(dropped) AS dropped, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
    countIf(at_provider AND NOT at_consumer) > 0 OR countIf(at_provider) > 1 AS reached,
    argMinIf(tunnel, {_PLACE}, tunnel.1 != 0) AS tunnel, max(carries) AS carries,
    {_LEAST_HOLDERS},
    argMinIf(provider_dns_name, {_PLACE}, provider_dns_name != '') AS provider_dns_name,
    sipHash64({", ".join(f"any({name})" for name in _TUPLE.split(", "))}{_also(slot)}) AS own
FROM ({_observed(slot)} UNION ALL {_dropped(slot)})
GROUP BY hop{_also(slot)}
"""


def _hops(slot: str = "") -> str:
    return f"""
SELECT * EXCEPT (
        hop, own, tunnel, {", ".join(_HOLDERS)}, tuple_dropped, tuple_reached, tuple_listed
    )
    REPLACE (tuple_dropped AS dropped, tuple_reached AS reached),
    {", ".join(f"tunnel.{at} AS {name}" for at, name in enumerate(TUNNEL_COLUMNS, 1))},
    {", ".join(f"{part} AS {name}" for name, part in _PROCESSES.items())}
FROM (
    SELECT * REPLACE (
            {", ".join(f"min({name}) OVER (PARTITION BY own) AS {name}" for name in _HOLDERS)}
        ),
        sum(dropped) OVER (PARTITION BY own) AS tuple_dropped,
        max(reached) OVER (PARTITION BY own) AS tuple_reached,
        max(NOT remote) OVER (PARTITION BY own) AS tuple_listed
    FROM ({_by_hop(slot)})
)
WHERE NOT remote OR dropped > 0 AND NOT tuple_listed
"""


HOPS = _hops()
"""One row per hop (own tuple, tuple before NAT).

Parameters: tenant, since, until (epoch ns).
"""

SLOT_HOPS = _hops("intDiv(window_end_ns - 1, {every:Int64})")
"""As HOPS, one row for each slot of `every` ns, whose number `slot` is, in which its windows ended.

A row adds up the windows of its slot alone, as if that were all the time asked for.
"""

_AT = " OR ".join(
    f"(kubernetes_cluster, {place}) IN {{nodes:Array(Tuple(String, String))}}"
    for place in ("consumer_node", "provider_node", "node")
)
HOPS_AT = f"""
SELECT * EXCEPT wanted
FROM (SELECT *, max({_AT}) OVER (PARTITION BY connection) AS wanted FROM ({HOPS})) WHERE wanted
"""
"""HOPS of the connections with an end at one of `nodes`, or that its agent told of."""

SOME_HOPS = f"""
SELECT * FROM ({HOPS}) LIMIT {{limit:UInt64}}
"""
"""At most `limit` of HOPS."""

TUNNELS = f"""
SELECT * FROM ({HOPS}) WHERE (protocol, consumer, provider, provider_port)
    IN {{tunnels:Array(Tuple(UInt8, IPv6, IPv6, UInt16))}}
"""
"""The hops of these tunnels."""


def hourly(question: str) -> str:
    """A question over HOPS, put to the roll-ups: hours partly in its range count whole."""
    for table in ("flows", "drops"):
        question = question.replace(
            f"FROM {table} WHERE {BETWEEN}", f"FROM {table}_hourly WHERE {IN_HOURS}"
        )
    return question.replace(_REMOTE, _REMOTEIN_HOURS)


HOUR_HOPS = hourly(_hops("intDiv(toUnixTimestamp(hour), 3600)"))
"""As SLOT_HOPS with slots of an hour, from the roll-ups."""


_DENIED = f"""
SELECT kubernetes_cluster, node, pod, direction, protocol, consumer, provider, provider_port,
    consumer_revision, provider_revision, consumer_item, provider_item, source, rule, reason,
    sum(packets) AS packets, sum(overflow) AS overflow, max(last_ns) AS last_ns
FROM drops WHERE {BETWEEN}
GROUP BY kubernetes_cluster, node, pod, direction, protocol, consumer, provider, provider_port,
    consumer_revision, provider_revision, consumer_item, provider_item, source, rule, reason
"""


def denied(where: str) -> str:
    """Drop reports, added up, that satisfy `where`, the latest first, at most `limit`."""
    return f"""
SELECT * FROM ({_DENIED}) WHERE {where}
ORDER BY last_ns DESC, consumer, provider, provider_port LIMIT {{limit:UInt32}}
"""


THROUGH = """
SELECT tenant, kubernetes_cluster, node, max(window_end_ns) AS through_ns FROM batches
WHERE NOT more AND window_end_ns >= (SELECT max(window_end_ns) FROM batches) - {silent:Int64}
GROUP BY tenant, kubernetes_cluster, node ORDER BY kubernetes_cluster, node
"""
"""The end of each node's last whole window, of nodes not silent when the last one ended."""

WINDOWS = """
SELECT DISTINCT window_start_ns, window_end_ns FROM batches
WHERE tenant = {tenant:String} AND window_end_ns > {since:Int64}
"""

OLDEST_WINDOW = """
SELECT min(window_start_ns) AS first_ns FROM batches WHERE tenant = {tenant:String}
"""
"""When the first window begins that was told of, epoch ns; 0 for none."""

KNOWN_BATCHES = """
SELECT tenant, id FROM batches
WHERE tenant IN {tenants:Array(String)} AND node IN {nodes:Array(String)}
    AND window_end_ns IN {ends:Array(Int64)} AND id IN {ids:Array(String)}
"""


def listed(where: str, sort: str, after: bool = False) -> str:
    """HOPS of the first `limit` connections with a hop that satisfies `where`, by `sort`.

    `weight` is what connections are sorted by, the greatest first, then by `connection`. With
    `after` those that stand behind `after_weight` and `after_connection`: a place that arrivals
    do not shift, as they do a count of rows.
    """
    later = (
        "(weight < {after_weight:Int64} OR weight = {after_weight:Int64}"
        " AND connection > {after_connection:UInt64})"
    )
    return f"""
SELECT * FROM (
    SELECT *, dense_rank() OVER (ORDER BY weight DESC, connection) AS place FROM (
        SELECT *, max(toInt64({sort})) OVER (PARTITION BY connection) AS weight,
            max({where}) OVER (PARTITION BY connection) AS wanted
        FROM ({HOPS})
    ) WHERE wanted{f" AND {later}" if after else ""}
) WHERE place <= {{limit:UInt32}}
ORDER BY place, first_ns, consumer, provider
"""


_TUPLES = f"""
SELECT {_TUPLE} FROM flows WHERE {BETWEEN} AND connection IN {{connections:Array(UInt64)}}
UNION DISTINCT
SELECT {_TUPLE} FROM drops WHERE {BETWEEN} AND connection IN {{connections:Array(UInt64)}}
"""

# An observer away from the consumer's node does not know of translation: what it saw of the same
# tuple stands under another connection.
OBSERVATIONS = f"""
SELECT *, {", ".join(f"{part} AS {name}" for name, part in _PROCESSES.items())}
FROM ({_observed()})
WHERE ({_TUPLE}) IN ({_TUPLES}) AND (remote OR connection IN {{connections:Array(UInt64)}})
LIMIT {{limit:UInt32}}
"""
"""One row per observer and hop: an interface of a node, its rank, and the tuple before NAT.

Parameters: those of HOPS, `connections`, `limit`.
"""

DROP_REPORTS = f"""
SELECT {_TUPLE}, node, pod, direction, source, rule, reason, sum(packets) AS packets,
    any(connection) AS connection, min(first_ns) AS first_ns, max(last_ns) AS last_ns,
    max(consumer_revision) AS consumer_revision, max(provider_revision) AS provider_revision
FROM drops WHERE {BETWEEN} AND ({_TUPLE}) IN ({_TUPLES})
GROUP BY {_TUPLE}, node, pod, direction, source, rule, reason
LIMIT {{limit:UInt32}}
"""
"""The drops of the same tuples, by who reported them. The same parameters."""
