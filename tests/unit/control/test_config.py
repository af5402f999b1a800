"""Listening addresses, as a person writes them."""

import pytest

from ringfence.control.config import parse_listen
from ringfence.model.errors import InputError


@pytest.mark.parametrize("text", ["8443", "localhost:8443", "127.0.0.1:x", "127.0.0.1:65536", ""])
def test_a_listening_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_listen(text)


def test_listening_addresses_read_back() -> None:
    for text in ("127.0.0.1:8443", "[::1]:0"):
        assert str(parse_listen(text)) == text
