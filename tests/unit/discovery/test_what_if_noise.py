"""What would be blocked, and what of it is noise by all that passes."""

import numpy as np
import pytest

from bench.discovery.files import write
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.cli.what_if import chosen
from ringfence.control.discover import past, peers_of
from ringfence.control.what_if import _doubts
from ringfence.discovery.decide import decide
from ringfence.discovery.facts import Facts
from ringfence.discovery.observed import observe
from ringfence.discovery.reasons import CORE, Outcome
from ringfence.flows.connections import ServiceSockets
from tests.unit.discovery.test_simulation import shop


def test_noise_is_told_by_all_that_passes(tmp_path_factory: pytest.TempPathFactory) -> None:
    inventory, flows = write(simulate(shop(), 4, style("plain")), tmp_path_factory.mktemp("files"))
    timeline = recorded_inventory(inventory).timeline
    records = recorded_flows(flows, timeline)
    lived = past(records, timeline.as_known())
    peers, services = peers_of(lived, records), ServiceSockets(lived.snapshot)
    everything = observe(records, peers, services)
    decisions = decide(everything, Facts(everything))
    noisy = (decisions.outcome == Outcome.NOISE) & ~decisions.of(*CORE)
    expected = {
        everything.format(edge): next(decisions.reasons(edge)) if noisy[edge] else ""
        for edge in range(len(everything))
    }
    kept = np.arange(len(records)) % 3 != 1
    blocked = observe(records.take(kept), peers, services)
    doubts = _doubts(everything, kept, blocked)
    told = doubts.noise
    assert {blocked.format(edge): why for edge, why in enumerate(told)}.items() <= expected.items()
    reviewed = (decisions.outcome == Outcome.REVIEW).tolist()
    held = {everything.format(edge) for edge in range(len(everything)) if reviewed[edge]}
    for edge, why in enumerate(doubts.review):
        assert bool(why) == (blocked.format(edge) in held), why
    assert any(doubts.review)
    assert any(told)
    assert not all(told)


def test_all_accepts_neither_noise_nor_review_and_their_numbers_do() -> None:
    rows = [
        {"number": number, "noise": noise, "review": review, "policy": {"id": f"p{number}"}}
        for number, noise, review in ((1, "", ""), (2, "", "alone: …"), (3, "scan: …", ""))
    ]
    assert chosen(rows, "all") == rows[:1]
    assert chosen(rows, "1,2,3") == rows
