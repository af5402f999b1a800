"""The JSON form of a conversation: complete, and proof against names that try to break out."""

import json

from ringfence.export.jsonl import text
from ringfence.model.protocol import UDP
from tests.unit.export.conversations import CARTS, FRONT, SERVICE, batch, conversation

HOSTILE = 'a"},"port":1,\n\\u0022\x00\u2028é'


def test_a_conversation_is_one_json_object_with_everything_that_is_known() -> None:
    rows = batch(
        conversation(
            dialled="10.100.0.9",
            provider_dns_name="carts.shop",
            rtt_samples=2,
            rtt_sum_ns=501,
            rtt_min_ns=100,
        ),
        conversation("fd00::2", "203.0.113.9", protocol=UDP, provider_port=53, provider_node=""),
    )
    via_service, plain = map(json.loads, text(rows).splitlines())
    assert via_service == {
        "first": "2030-03-17T17:46:40.000000001Z",
        "last": "2030-03-17T17:46:41.500000000Z",
        "kubernetes_cluster": "lab",
        "node": "node1",
        "protocol": "TCP",
        "consumer": {
            "address": "10.1.1.2",
            **FRONT,
            "node": "node1",
            "process": {"name": "node", "pid": 71, "container": "front-end"},
        },
        "consumer_port": 0,
        "provider": {
            "address": "10.1.1.3",
            **CARTS,
            "node": "node2",
            "process": None,
            "dns_name": "carts.shop",
        },
        "port": 8080,
        "original": {
            "consumer": {"address": "10.1.1.2", **FRONT},
            "provider": {"address": "10.100.0.9", **SERVICE},
            "port": 80,
        },
        "method": "syn",
        "forward": {
            "packets": 5,
            "bytes": 500,
            "flags": ["FIN", "SYN", "PSH", "ACK"],
            "syn": 3,
            "fin": 1,
            "rst": 0,
            "retransmitted": 7,
        },
        "reverse": {
            "packets": 4,
            "bytes": 4_000_000_000_000,
            "flags": ["SYN", "ACK"],
            "syn": 2,
            "fin": 0,
            "rst": 0,
            "retransmitted": 0,
        },
        "opened": 2,
        "answered": 1,
        "refused": 0,
        "rtt": {"samples": 2, "min_ns": 100, "mean_ns": 250},
    }
    assert plain["original"] is None
    assert plain["rtt"] is None
    assert (plain["consumer"]["address"], plain["protocol"], plain["port"]) == (
        "fd00::2",
        "UDP",
        53,
    )


def test_a_hostile_name_stays_a_name_on_its_own_line() -> None:
    (line,) = text(
        batch(conversation(consumer_name=HOSTILE, node=HOSTILE, consumer_process=HOSTILE))
    ).splitlines()
    read = json.loads(line)
    assert read["consumer"]["name"] == read["node"] == HOSTILE
    assert read["consumer"]["process"]["name"] == HOSTILE
    assert read["port"] == 8080
