"""Whatever can be said prints to one text, and that text says the same."""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.model.address import Address, Network, parse_address
from ringfence.model.address_set import AddressSet, Fetched, Uploaded, Written
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import AddressSetName, FilterName, PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import (
    SPOKEN,
    SPOKEN_BY_POLICIES,
    AddressSetEnd,
    ApiServerEnd,
    CatchAll,
    CidrEnd,
    Cluster,
    ClusterEnd,
    Denied,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import ICMP, ICMPV6, WITH_PORTS, PortName, PortRange
from ringfence.model.query import And, Compare, Everything, Not, Operator, Or, Query
from ringfence.model.ranges import AddressRange
from ringfence.model.scope import InventoryFilter, PublicPorts, Scope
from ringfence.policy.document import Documents, format_documents, parse_documents

texts = st.text(min_size=1, max_size=12) | st.sampled_from(["no", "12", "~", "a: b", "- x", "#"])
names = texts.filter(str.isprintable)
labels = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=8).filter(
    str.isprintable
)
titles = st.from_regex("[A-Za-z0-9]([-._A-Za-z0-9]{0,6}[A-Za-z0-9])?", fullmatch=True)
compares: st.SearchStrategy[Query] = st.builds(
    Compare,
    st.sampled_from(["kubernetes.namespace", "kubernetes.label.env"]),
    st.just(Operator.EQ),
    st.tuples(texts),
)
queries = st.recursive(
    compares | st.builds(Everything),
    lambda inner: st.one_of(
        st.builds(And, st.tuples(inner, inner)),
        st.builds(Or, st.tuples(inner, inner)),
        st.builds(Not, inner),
    ),
    max_leaves=4,
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    length = draw(st.integers(0, 128))
    address = draw(st.integers(0, 2**128 - 1)) >> (128 - length) << (128 - length)
    return Network(Address(address.to_bytes(16)), length)


def ends(clusters: list[str]) -> st.SearchStrategy[End]:
    blocks = st.lists(networks(), min_size=1, max_size=2).map(tuple)
    kinds: list[st.SearchStrategy[End]] = [
        st.builds(ScopeEnd, names.map(ScopeName)),
        st.builds(FilterEnd, queries),
        st.builds(CidrEnd, blocks, st.just(()) | blocks),
        st.builds(FqdnEnd, st.sampled_from(["a", "api.example.org", "*.example.org"])),
        st.builds(OwnNodeEnd),
        st.builds(OutsideEnd),
        st.builds(NamedFilterEnd, names.map(FilterName)),
        st.builds(AddressSetEnd, names.map(AddressSetName)),
        st.builds(ApiServerEnd, st.just("") | names),
    ]
    return st.one_of(kinds + ([st.builds(ClusterEnd, st.sampled_from(clusters))] * bool(clusters)))


@st.composite
def policies(draw: st.DrawFn, clusters: list[str], name: str) -> Policy:
    protocol = draw(st.none() | st.integers(0, 255) | st.sampled_from([*WITH_PORTS, ICMP, ICMPV6]))
    bounds = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
    ports = st.lists(bounds.map(lambda pair: PortRange(*pair)) | names_of_ports, max_size=3)
    types = st.builds(IcmpType, st.integers(0, 255), st.none() | st.integers(0, 255))
    services = st.builds(ServiceEnd, labels, labels, st.just("") | names)
    provider = draw(ends(clusters) | services)
    given_ports = tuple(draw(ports)) if protocol in WITH_PORTS else ()
    if not isinstance(provider, ScopeEnd | FilterEnd | ClusterEnd | ServiceEnd | ApiServerEnd):
        given_ports = tuple(port for port in given_ports if isinstance(port, PortRange))
    return Policy(
        PolicyId(name),
        draw(ends(clusters)),
        provider,
        protocol,
        given_ports,
        draw(st.sampled_from(SPOKEN_BY_POLICIES)),
        draw(st.sampled_from(Rank)),
        draw(st.integers(1 - 2**31, 2**31 - 1)),
        draw(st.just("") | texts),
        tuple(draw(st.lists(types, max_size=2))) if protocol in (ICMP, ICMPV6) else (),
        draw(st.just("") | texts),
        draw(st.just("") | texts),
        draw(st.none() | st.integers(0, 2**33).map(lambda seconds: seconds * 10**9)),
        draw(st.booleans()),
    )


names_of_ports = st.sampled_from([PortName("http"), PortName("a-1"), PortName("9p")])


@st.composite
def workspaces(draw: st.DrawFn, name: str) -> Workspace:
    clusters = draw(st.lists(names, unique=True, max_size=2))
    ids = draw(st.lists(names, unique=True, max_size=3))
    actions = st.sampled_from(SPOKEN)
    return Workspace(
        WorkspaceName(name),
        ScopeName(draw(names)),
        draw(st.booleans()),
        CatchAll(draw(actions), draw(actions)),
        tuple(Cluster(cluster, draw(queries)) for cluster in clusters),
        tuple(draw(policies(clusters, policy)) for policy in ids),
        draw(st.sampled_from(Denied)),
    )


@st.composite
def documents(draw: st.DrawFn) -> Documents:
    scopes: list[Scope] = []
    for name in draw(st.lists(titles, unique=True, max_size=3)):
        parent = draw(st.sampled_from([None, *(scope.name for scope in scopes)]))
        scopes.append(Scope(ScopeName(name), parent, draw(queries), draw(st.integers(-9, 9))))
    return Documents(
        tuple(scopes),
        tuple(draw(workspaces(name)) for name in draw(st.lists(titles, unique=True, max_size=2))),
        tuple(draw(filters(name)) for name in draw(st.lists(titles, unique=True, max_size=2))),
        tuple(
            AddressSet(AddressSetName(name), draw(sources))
            for name in draw(st.lists(titles, unique=True, max_size=2))
        ),
    )


@st.composite
def ranges(draw: st.DrawFn) -> AddressRange:
    """A range of either family, a block and a single address among them."""
    start = int.from_bytes(parse_address(draw(st.sampled_from(["1.2.3.0", "2001:db8::"]))))
    first, more = draw(st.integers(0, 255)), draw(st.sampled_from([0, 1, 3, 255, 4095]))
    return start + first, start + first + more


sources = st.one_of(
    st.builds(Written, st.lists(ranges(), min_size=1, max_size=3).map(tuple)),
    st.builds(
        Fetched,
        st.sampled_from(["https://lists.example.org/drop.txt?a=b", "http://[2001:db8::1]:8080/"]),
        st.sampled_from([300, 5400, 3600, 86400, 7 * 86400]),
    ),
    st.builds(Uploaded),
)


@st.composite
def filters(draw: st.DrawFn, name: str) -> InventoryFilter:
    protocols = st.sampled_from(sorted(WITH_PORTS))
    ports = st.lists(st.builds(PortRange, st.just(1), st.integers(1, 65535)), max_size=2)
    provided = st.builds(PublicPorts, protocols, ports.map(tuple))
    public = tuple(draw(st.lists(provided, max_size=2)))
    scope = ScopeName(draw(names))
    return InventoryFilter(FilterName(name), scope, draw(queries), draw(st.booleans()), public)


@given(documents())
def test_documents_round_trip(said: Documents) -> None:
    text = format_documents(said)
    read = parse_documents(text, "said.yaml")
    assert set(read.scopes) == set(said.scopes)
    assert set(read.filters) == set(said.filters)
    assert set(read.address_sets) == set(said.address_sets)
    assert set(read.workspaces) == set(said.workspaces)
    assert format_documents(read) == text
