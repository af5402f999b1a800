"""Which keys a filter may name, and what is said of one that there is not."""

import pytest

from ringfence.flows.group import parse_end_keys, parse_group_keys
from ringfence.model.errors import InputError
from ringfence.model.keys import parse_filter
from ringfence.store.flows.filter import ATTRIBUTES, ENDS, OF_HOP, Condition


@pytest.mark.parametrize(
    "key",
    [
        "kubernetes.Namespace",
        "kubernetes.label.app.kubernetes.io/name",
        "provider.kubernetes.annotation.team",
        "consumer.address",
        "disposition",
    ],
)
def test_keys_that_there_are(key: str) -> None:
    parse_filter(f'not ({key} exists and name = "x")', ENDS, ATTRIBUTES)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("kubernetes.namespce", "did you mean kubernetes.namespace?"),
        ("namespace", "did you mean kubernetes.namespace?"),
        ("kubernetes.labels.name", "did you mean kubernetes.label.name?"),
        ("consumr.kubernetes.label.app", "did you mean consumer.kubernetes.label.app?"),
        ("provider.kubernetes.namespce", "did you mean provider.kubernetes.namespace?"),
        ("consumer.namespace", "did you mean consumer.kubernetes.namespace?"),
        ("provider.workload", "did you mean provider.kubernetes.owner.name?"),
        ("dispositon", "did you mean disposition?"),
        ("kubernetes.label.", "there is no key"),
        ("x", "known are address, kind"),
    ],
)
def test_a_mistyped_key_is_an_error(key: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(f'port = 1 or not {key} = "x"', ENDS, ATTRIBUTES)
    assert said in str(caught.value)


@pytest.mark.parametrize("written", ['kind = "foo"', 'not provider.kind in ("pod", "foo")'])
def test_a_value_that_a_key_never_has_is_an_error(written: str) -> None:
    with pytest.raises(InputError, match=r"'foo' is no kind: write pod, node"):
        parse_filter(written, ENDS, ATTRIBUTES)
    with pytest.raises(InputError, match=r"'foo' is no method: write syn"):
        parse_filter('method != "foo"', ENDS, ATTRIBUTES)
    parse_filter('kind matches "foo" or kubernetes.owner.kind = "foo"')


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("kubernetes.namespace", "did you mean consumer.kubernetes.namespace?"),
        ("foo", "known are consumer.KEY, provider.KEY, dialled.KEY, protocol"),
    ],
)
def test_groups_are_by_labels_of_an_end(by: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_group_keys(by)
    assert said in str(caught.value)


def test_a_graph_takes_no_side() -> None:
    with pytest.raises(InputError, match=r"'consumer\.workload': .* write workload$"):
        parse_end_keys("kubernetes.cluster,consumer.workload")


@pytest.mark.parametrize("word", ["FOO", "any"])
def test_a_protocol_is_named_in_a_filter(word: str) -> None:
    query = parse_filter(f'protocol = "{word}"', ENDS, ATTRIBUTES)
    with pytest.raises(InputError, match=f"'{word}' is not a protocol: .*SCTP, or a number$"):
        Condition(query, lambda _: [], OF_HOP)


def test_items_have_no_ends() -> None:
    with pytest.raises(InputError, match=r"no key .consumer\.name."):
        parse_filter('consumer.name = "x"')
