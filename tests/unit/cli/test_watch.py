"""What `flows watch` tells after its stream broke off."""

from ringfence.cli.flows.watch import _Recent


def news(recent: _Recent, at: str, text: bytes = b"one") -> bool:
    return recent.is_news({"start": f"2030-01-01T{at}.000Z", "flow": {"connection": "c"}}, text)


def test_after_a_break_nothing_is_told_from_before_it_began() -> None:
    recent = _Recent()
    assert recent.go_on() is None
    assert news(recent, "12:00:15")
    assert news(recent, "12:00:00"), "a late report while the stream holds"
    assert recent.go_on() == "2030-01-01T12:00:15.000+00:00"
    assert not news(recent, "12:00:00", b"more")
    assert not news(recent, "12:00:15")
    assert news(recent, "12:00:15", b"more")
    assert news(recent, "12:00:30")


def test_after_a_break_nothing_is_told_that_is_no_longer_remembered() -> None:
    recent = _Recent()
    for at in ("12:00:00", "12:10:00"):
        assert news(recent, at)
    assert recent.go_on() == "2030-01-01T12:05:00.000+00:00"
    assert not news(recent, "12:00:00")
