"""Counts and lists as people read them."""

from ringfence.model.words import counted, named


def test_one_is_singular() -> None:
    said = [counted(count, "policy", "policies") for count in range(3)]
    assert said == ["0 policies", "1 policy", "2 policies"]
    assert counted(2, "node") == "2 nodes"


def test_only_ten_are_named() -> None:
    names = list("abcdefghijkl")
    assert named(names[:10]) == "a, b, c, d, e, f, g, h, i, j"
    assert named(names) == "a, b, c, d, e, f, g, h, i, j and 2 more"
