"""What a file of labels may say, and to whom an address belongs then."""

import numpy as np
import pytest

from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.timeline import Timeline
from ringfence.inventory.uploaded import item_of, make_upload, read_csv
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import RevisionId
from tests.integration.world import CLUSTER, pod


def test_csv_as_spreadsheets_write_it() -> None:
    text = '\ufeffAddress,Site,name\r\n2001:db8::/32, Köln ,\r\n,,\r\n10.0.0.1/32,\'=x,"a, b"\r\n'
    six, four = read_csv(text)
    assert (six.address, six.name, six.labels) == ("2001:db8::/32", "", {"site": "Köln"})
    assert (four.address, four.name, four.labels) == ("10.0.0.1", "a, b", {"site": "=x"})
    assert item_of(six).name == "2001:db8::/32"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("address;site\n10.0.0.1;x\n", ["line 1", "'address;site'", "joined by commas"]),
        ("address,site\n10.0.0.1/8,x\n10.0.0.1,a\nx,y\n", ["line 2", "10.0.0.0/8; line 4: 'x'"]),
        ("address,site\n10.0.0.1,x\n10.0.0.1/32,y\n", ["line 3: 10.0.0.1 stands in line 2"]),
        ("address,site\n10.0.0.1\n", ["line 2: 1 cells, and the header has 2"]),
        ("address,kubernetes namespace\n", ["line 1", "'kubernetes namespace'", "letters"]),
        ("address,site,SITE\n", ["line 1: two columns are called 'site'"]),
        ("address,user.site\n", ["line 1: column 'user.site' is written 'site' here"]),
        ("address,site\n10.0.0.1,\x1b[31m\n", ["line 2: site has characters that cannot"]),
        (f"address,site\n10.0.0.1,{'ü' * 129}\n", ["line 2: site has more than 256 bytes"]),
        ('address,site\n10.0.0.1,"x\n', ["line 2: not CSV"]),
        ("", ["line 1", "found nothing"]),
    ],
)
def test_bad_csv_is_refused_by_line(text: str, wrong: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_csv(text)
    for part in wrong:
        assert part in str(caught.value)


def test_a_network_holds_what_no_item_held_all_the_while() -> None:
    """Where an address went from one pod to another, the network is no better answer."""
    timeline, address = Timeline(), "10.1.1.2"
    timeline.observe(0, item_of(make_upload("10.0.0.0/8", "wide", {})))
    timeline.observe(50, item_of(make_upload("10.1.0.0/16", "narrow", {})))
    for name, begin, end in (("a-1", 10, 20), ("b-1", 20, 30)):
        item = pod(name, address, "node1")
        timeline.observe(begin, item)
        timeline.gone(end, item.key)
    spans = [(5, 9), (5, 15), (15, 25), (25, 40), (30, 60), (60, 70), (-9, -5), (-9, 2)]
    rows = np.tile(np.frombuffer(parse_address(address), dtype=np.uint8), (len(spans), 1))
    first, last = (np.array(times, dtype=np.int64) for times in zip(*spans, strict=True))
    seen_from = SeenFrom.one(CLUSTER, len(spans))
    held = timeline.resolve(rows, first, last, seen_from).tolist()
    one, none = SeenFrom.one(CLUSTER, 1), SeenFrom.one(CLUSTER, 0)
    assert timeline.resolve(rows[1:2], first[1:2], last[1:2], one).all(), "all are held"
    assert not len(timeline.resolve(rows[:0], first[:0], last[:0], none))
    names = [timeline.revision(RevisionId(one))[0].name if one else "" for one in held]
    assert names == ["wide", "a-1", "", "b-1", "wide", "narrow", "", "wide"]
