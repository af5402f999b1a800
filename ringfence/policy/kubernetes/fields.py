"""What selectors, addresses, ports and protocols of Kubernetes' objects may say.

Each function takes the path of a field for its refusal, as the API server would tell it.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ringfence.model.address import Network, parse_network
from ringfence.model.protocol import SCTP, TCP, UDP, PortRange
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes import schema
from ringfence.policy.kubernetes.policies import Requirement, Requires, Selector

T = TypeVar("T")
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
_OPERATORS = [one for one in Requires if one is not Requires.EQUALS]
_MAX_PORT = 65535
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = re.compile(rf"(?:{_NAME})?")
_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:{_DNS_LABEL}(?:\.{_DNS_LABEL})*/)?{_NAME}")
_MAX_LABEL_KEY = 253 + 1 + 63
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]{0,13}[a-z0-9])?")
_CIDR = re.compile(r"[0-9a-fA-F:.]+/[0-9]{1,3}")
"""Neither masks in place of lengths nor zones, which Python would read."""
_LEADING_ZEROS = re.compile(r"(?<![0-9a-fA-F:])0+(?=[0-9])")


def convert(value: Any, kind: type[T], path: str) -> T:
    """The value as that structure; raises FieldError with the field that is not as it says."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        expected, _, at = str(error).partition(" - at `")
        field = at.rstrip("`").removeprefix("$").removeprefix(".")
        raise FieldError(".".join(part for part in (path, field) if part), expected) from error


def selector(given: schema.LabelSelector, path: str) -> Selector:
    """A label selector's requirements, in an order that does not depend on the writing."""
    found = set()
    for key, value in (given.match_labels or {}).items():
        _check_key(key, f"{path}.matchLabels")
        _check_value(value, f"{path}.matchLabels[{key}]")
        found.add(Requirement(key, Requires.EQUALS, (value,)))
    for at, one in enumerate(given.match_expressions or ()):
        here = f"{path}.matchExpressions[{at}]"
        _check_key(one.key, f"{here}.key")
        if one.operator not in _OPERATORS:
            raise FieldError(f"{here}.operator", f"expected one of {', '.join(_OPERATORS)}")
        operator = Requires(one.operator)
        if bool(one.values) != (operator in (Requires.IN, Requires.NOT_IN)):
            wanted = "no values" if one.values else "at least one value"
            raise FieldError(f"{here}.values", f"expected {wanted} with the operator {operator}")
        for value in one.values or ():
            _check_value(value, f"{here}.values")
        found.add(Requirement(one.key, operator, tuple(dict.fromkeys(one.values or ()))))
    return tuple(sorted(found, key=lambda one: (one.operator is not Requires.EQUALS, one)))


def network(text: str, path: str) -> Network:
    """A CIDR block. As for the API server, host bits may be set and numbers have leading zeros."""
    wrong = FieldError(path, f"expected a CIDR block such as 10.0.0.0/8, not {text[:64]!r}")
    if not _CIDR.fullmatch(text):
        raise wrong
    try:
        return parse_network(str(ipaddress.ip_network(_LEADING_ZEROS.sub("", text), strict=False)))
    except ValueError as error:
        raise wrong from error


def protocol(name: str | None, path: str) -> int:
    """A protocol by its name; TCP where there is none."""
    if name is not None and name not in PROTOCOLS:
        raise FieldError(path, f"expected one of {', '.join(PROTOCOLS)}, not {name!r}")
    return PROTOCOLS[name or "TCP"]


def ports(first: int, last: int, path: str) -> PortRange:
    """Ports `first` to `last`."""
    if not 1 <= first <= last <= _MAX_PORT:
        raise FieldError(path, f"expected ports from 1 to {_MAX_PORT}, not {first}-{last}")
    return PortRange(first, last)


def port_name(name: str, path: str) -> str:
    """The name of a container port (RFC 6335, section 5.1)."""
    if not _PORT_NAME.fullmatch(name):
        raise FieldError(path, f"expected a port's number or name, not {name[:64]!r}")
    return name


def exactly_one(given: Sequence[object], names: str, path: str) -> None:
    """Refuse none and several of the fields `names`, whose values are given."""
    if sum(one is not None for one in given) != 1:
        raise FieldError(path, f"expected exactly one of {names}")


def is_label_key(key: str) -> bool:
    """Whether a label may have the key."""
    return len(key) <= _MAX_LABEL_KEY and _LABEL_KEY.fullmatch(key) is not None


def is_label_value(value: str) -> bool:
    """Whether a label may have the value."""
    return _LABEL_VALUE.fullmatch(value) is not None


def _check_key(key: str, path: str) -> None:
    if not is_label_key(key):
        raise FieldError(path, f"expected a label's key, not {key[:64]!r}")


def _check_value(value: str, path: str) -> None:
    if not is_label_value(value):
        raise FieldError(path, f"expected a label's value, not {value[:64]!r}")
