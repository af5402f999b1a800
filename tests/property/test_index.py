"""The index of labels finds what the filter language says of each item, whatever the query."""

from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.index import LabelIndex
from ringfence.model.query import And, Compare, Everything, Not, Operator, Or, Query, matches

KEYS, VALUES = st.sampled_from("abc"), st.sampled_from(["x", "xy", "10.0.0.1", "7", "9.5", ""])
OPERANDS = {
    Operator.MATCHES: st.sampled_from(["x.*", ".+", "(7|9[.]5)"]),
    Operator.SUBNET: st.sampled_from(["10.0.0.0/8", "::/0"]),
    **dict.fromkeys((Operator.LT, Operator.LE, Operator.GT, Operator.GE), st.sampled_from("79")),
}


@st.composite
def compares(draw: st.DrawFn) -> Query:
    operator = draw(st.sampled_from(Operator))
    values = draw(st.lists(OPERANDS.get(operator, VALUES), min_size=1, max_size=2))
    if operator is Operator.EXISTS:
        values = []
    return Compare(draw(KEYS), operator, tuple(values if operator is Operator.IN else values[:1]))


queries: st.SearchStrategy[Query] = st.recursive(
    compares() | st.builds(Everything),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
labelled = st.lists(
    st.dictionaries(KEYS, st.sets(VALUES, min_size=1, max_size=2).map(sorted).map(tuple)),
    max_size=8,
)


@given(labelled, queries)
def test_the_index_finds_what_satisfies_the_query(
    items: list[dict[str, tuple[str, ...]]], query: Query
) -> None:
    index = LabelIndex(items)
    expected = [at for at, labels in enumerate(items) if matches(query, labels)]
    assert list(index.select(query)) == expected
    assert list(index.select(query)) == expected
