"""What sets held at a time."""

from ringfence.inventory.contents import MOST_KEPT, Content, Contents, pack, unpack
from ringfence.model.ids import AddressSetName

SET, OTHER = AddressSetName("a"), AddressSetName("b")


def content(at_ns: int, first: int) -> Content:
    return Content(SET, at_ns, pack([(first, first)]))


def test_a_time_has_the_content_of_then() -> None:
    contents = Contents()
    contents.begin(SET)
    contents.begin(OTHER)
    assert contents.as_of(0) == {SET: (), OTHER: ()}
    for at_ns in (10, 20):
        contents.hold(content(at_ns, at_ns))
    asked = {9: 10, 10: 10, 19: 10, 20: 20, 99: 20}  # before the first one, that
    for at_ns, first in asked.items():
        assert contents.as_of(at_ns) == {SET: ((first, first),), OTHER: ()}
    assert sorted(contents.instants([SET, OTHER, AddressSetName("none")])) == [10, 20]
    contents.forget(SET)
    assert contents.as_of(20) == {OTHER: ()}


def test_the_last_contents_are_kept() -> None:
    contents = Contents()
    for at_ns in range(MOST_KEPT):
        assert not contents.over(SET)
        contents.hold(content(at_ns, at_ns))
    assert contents.over(SET) == [content(0, 0)]
    contents.hold(content(MOST_KEPT, 0))
    assert sorted(contents.instants([SET])) == list(range(1, MOST_KEPT + 1))


def test_packing_loses_nothing() -> None:
    ranges = ((0, 0), (5, 2**128 - 1))
    assert unpack(pack(ranges)) == ranges
    assert Content(SET, 0, pack(ranges)).count == 2
