"""A flow store over the shards of a ClickHouse cluster tells what one on a single server tells."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ringfence.store.flows import FlowStore
from tests.integration.store.observed import keep
from tests.integration.store.questions import QUESTIONS, answers, reports


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it says there, where clocks are half an hour beside others.

    The embedded engine has one configuration in a process.
    """
    script = [sys.executable, "-m", "tests.integration.store.shards"]
    directory = tmp_path_factory.mktemp("shards")
    words, env = [*script, str(directory)], os.environ | {"TZ": "Asia/Kolkata"}
    run = subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=100, env=env)
    told: dict[str, Any] = json.loads(run.stdout)
    return told


async def test_two_shards_tell_the_same_as_one_server(
    store: FlowStore, two_shards: dict[str, Any]
) -> None:
    await keep(store, *reports())
    expected = await answers(store)
    assert all(expected.values()), "nothing is compared with nothing"
    assert expected.keys() == {*QUESTIONS, "export"}
    assert two_shards["shards"] == 2
    for name, rows in expected.items():
        assert two_shards["answers"][name] == rows, name


def test_a_batch_is_stored_once_over_two_shards(two_shards: dict[str, Any]) -> None:
    assert two_shards["known"] == len(reports())
    assert two_shards["sent again"]


def test_rows_go_at_their_age_on_every_shard(two_shards: dict[str, Any]) -> None:
    assert two_shards["with aged"] == 2
    assert two_shards["later"]


def test_hours_and_days_are_those_of_utc_wherever_the_server_is(two_shards: dict[str, Any]) -> None:
    assert two_shards["hours"] == [0]
    assert two_shards["days"] == ["2030-03-17"]


def test_a_store_of_the_third_schema_is_upgraded_on_every_shard(two_shards: dict[str, Any]) -> None:
    upgraded = two_shards["upgraded"]
    # The hours of that schema were those of the server's zone, and stay.
    by_hour = "conversations hour by hour"
    assert upgraded["answers"].keys() == two_shards["answers"].keys()
    for question, told in two_shards["answers"].items():
        assert question == by_hour or upgraded["answers"][question] == told, question
    assert upgraded["hour"] == ["DateTime('UTC')"]
    assert upgraded["beside"] == 0
