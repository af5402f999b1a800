"""Which keys a filter may name, and what is said of one that there is not."""

import pytest

from ringfence.model.errors import InputError
from ringfence.model.keys import parse_filter
from ringfence.store.flows.filter import ATTRIBUTES, ENDS


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
        ("dispositon", "did you mean disposition?"),
        ("kubernetes.label.", "there is no key"),
        ("x", "known are address, kind"),
    ],
)
def test_a_mistyped_key_is_an_error(key: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(f'port = 1 or not {key} = "x"', ENDS, ATTRIBUTES)
    assert said in str(caught.value)


def test_items_have_no_ends() -> None:
    with pytest.raises(InputError, match=r"no key .consumer\.name."):
        parse_filter('consumer.name = "x"')
