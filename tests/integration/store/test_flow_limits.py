"""What the embedded flow store takes of memory, and what it does where there is no more disk."""

import asyncio
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore
from ringfence.store.flows.stream import Streams

MEMORY_MIB = 1024


def test_memory_stays_within_its_bound_under_readers_and_writers(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.integration.store.hold_under_load"]
    words = [*script, str(tmp_path), str(MEMORY_MIB), "15"]
    ran = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    grown, inserted, answered = (int(word) for word in ran.stdout.split())
    assert grown <= MEMORY_MIB
    assert inserted > 1
    assert answered > 1


def test_a_disk_that_is_full_refuses_and_loses_nothing(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.integration.store.fill_disk", str(tmp_path)]
    ran = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *script],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = json.loads(ran.stdout)
    assert re.search("(?i)not enough space|no space left", told.pop("said")), "it says why"
    assert told.pop("stored") > 2
    assert told == {
        "readable": True,
        "kept": True,
        "whole": True,
        "kept after a restart": True,
    }


async def test_questions_that_were_abandoned_make_way_for_others(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.store.flows.store._LONGEST_SECONDS", 1)
    endless = "SELECT count() FROM numbers(30000000000) WHERE sipHash64(number) % 7 = 3"
    for _ in range(2):
        with pytest.raises(StoreError, match="ask for a shorter time"):
            await asyncio.gather(store.query(endless, {}), store.query(endless, {}))
    answers: list[int] = []
    while not answers:
        with suppress(StoreError):
            answers += (await store.query("SELECT 1 AS one", {}))["one"].to_pylist()
    assert answers == [1]


async def test_streams_that_nobody_reads_on_make_way_for_others(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.store.flows.stream._PATIENCE_SECONDS", 2)
    numbers, row = "SELECT number FROM numbers(1000000)", np.dtype([("number", "u8")])
    first, second = (store.streams.rows(numbers, {}, row) for _ in range(2))
    read = [len(await anext(parts)) for parts in (first, second)]
    await asyncio.sleep(2.5)  # nobody waits, nobody has to go
    read[1] += len(await anext(second))
    assert sum([len(part) async for part in store.streams.rows(numbers, {}, row)]) == 1_000_000
    with pytest.raises(StoreError, match="nobody read on"):
        await anext(first)
    assert read[1] + sum([len(part) async for part in second]) == 1_000_000


async def test_one_stream_makes_way_and_only_where_there_is_no_other_place(
    store: FlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.store.flows.stream._PATIENCE_SECONDS", 0.2)
    streams = Streams(store._connect)  # which belong to the event loop
    numbers, row = "SELECT number FROM numbers(200000)", np.dtype([("number", "u8")])
    slow = [streams.rows(numbers, {}, row)]
    await anext(slow[0])
    await asyncio.sleep(0.5)
    slow.append(streams.rows(numbers, {}, row))  # there is a place for it
    await anext(slow[1])
    await asyncio.sleep(0.5)
    assert sum([len(part) async for part in streams.rows(numbers, {}, row)]) == 200_000
    kept = 0
    for parts in slow:
        with suppress(StoreError):
            kept += len(await anext(parts)) > 0
            await parts.aclose()
    assert kept == 1
    await streams.stop()
