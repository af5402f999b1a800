"""What conversations are taken to have been dialled by."""

import numpy as np
import pyarrow as pa
import pytest

from ringfence.discovery.host_names import with_host_names
from ringfence.flows.connections import Records
from ringfence.model.address import parse_address

FRONT, CARTS = "10.1.0.1", "10.1.0.2"
TOLD = [
    ("API.test.", "203.0.113.1", FRONT), ("", "203.0.113.1", FRONT),
    ("own.test", "203.0.113.2", FRONT), ("api.test", "203.0.113.3", FRONT),
    ("www.test", "203.0.113.3", FRONT), (None, "203.0.113.3", FRONT),
    ("*.test", "203.0.113.4", FRONT), ("", "203.0.113.1", CARTS),
]  # fmt: skip
BY_ONE = ["api.test", "api.test", "own.test", "api.test", "www.test", "", "*.test", ""]
OF_THE_RESOLVER = ["api.test", "api.test", "", "api.test", "www.test", "", "", ""]


@pytest.mark.parametrize(
    ("known", "names"), [(None, BY_ONE), ({"api.test", "www.test"}, OF_THE_RESOLVER)]
)
def test_names_are_those_that_policies_may_mean(known: set[str] | None, names: list[str]) -> None:
    table = pa.table(
        {
            "provider_dns_name": pa.array([name for name, _, _ in TOLD], pa.string()),
            "first_consumer": pa.array([parse_address(by) for _, _, by in TOLD], pa.binary(16)),
            "provider": pa.array([parse_address(at) for _, at, _ in TOLD], pa.binary(16)),
        }
    )
    count = len(table)
    seen = Records(table, np.zeros(count, np.uint64), np.zeros(count, np.bool_))
    assert with_host_names(seen, known).table["provider_dns_name"].to_pylist() == names
