"""The filter language: what it prints, what it matches, and how it refuses."""

import pytest

from ringfence.model.labels import make_labels
from ringfence.model.query import QueryError, matches, parse

LABELS = {"env": ("prod",), "cve": ("CVE-1", "CVE-2"), "cvss": ("9.8",), "address": ("10.1.2.3",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('env = "prod"', True),
        ('ENV = "prod"', True),
        ('env = "Prod"', False),
        ('env != "test" and missing != "x"', True),
        ('cve = "CVE-2" and cve in ("CVE-1", "CVE-9")', True),
        ('cve != "CVE-2"', False),
        ("cvss >= 9 and cvss < 10", True),
        ("env > 1", False),
        ('address subnet "10.0.0.0/8" and not address subnet "10.2.0.0/16"', True),
        ('address subnet "::/0" or address subnet "::/80"', False),
        ('env contains "ro" and env matches "p.*d" and not env matches "p"', True),
        ('missing exists or env = "x"', False),
        ('env = "x" and env = "y" or env exists', True),
        ('not(missing exists)and not_a != "x" and in.b != "y"and everything', True),
        ("everything", True),
    ],
)
def test_matches_and_prints_back(text: str, expected: bool) -> None:
    query = parse(text)
    assert matches(query, LABELS) is expected
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a = shop", 1, 5, "expected a number or a quoted string"),
        ('a = "x" and\n  b ~ "y"', 2, 5, "an operator"),
        ("", 1, 1, "a label key"),
        ('address subnet "10.0.0.1/8"', 1, 16, "host bits"),
        ('a matches "("', 1, 11, "regular expression"),
        ('a matches "(?=x)"', 1, 11, "no look-around"),
        ('a matches "("', 1, 11, "look-around: missing ): ("),
        ('a = "\\ud800"', 1, 5, "an escape"),
        ('a = "x\ty"', 1, 5, r"a control letter: write \n"),
        ('a = "x', 1, 5, "a quoted string that has no end"),
        ('a = "x" andb = "y"', 1, 9, "found 'andb', expected 'and' or 'or' or the end"),
        (
            "a exists and b existsor c exists",
            1,
            16,
            "found 'existsor', expected 'exists' or 'in' or",
        ),
        ('a inside ("x")', 1, 3, "found 'inside', expected 'exists' or 'in' or"),
        ('(a = "x" b', 1, 10, "found 'b', expected ')' or 'and' or 'or'"),
        ('a in ("x" b', 1, 11, "found 'b', expected ')' or ','"),
        ('a = "x" )', 1, 9, "found ')', expected 'and' or 'or' or the end"),
        ('a >= "high"', 1, 6, "compares numbers"),
        ("a in ()", 1, 7, "found ')'"),
        ('a = "x" \u2028 ?', 1, 11, "found '?'"),
        ("not " * 1_500 + "everything", 1, 1, "levels"),
        ("a = 1 and (" * 500 + "a = 1" + ")" * 500, 1, 1, "levels"),
        ("a = " + "1" * 70_000, 1, 1, "longer than"),
    ],
)
def test_refusals_name_the_place(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert said in str(caught.value)


def test_no_regular_expression_takes_for_ever() -> None:
    assert not matches(parse('a matches "(.|.)*X"'), {"a": ("a" * 200,)})


def test_versions_compare_as_versions() -> None:
    order = ["0.9", "1.0~rc1", "1.0", "1.0a", "1.0.1", "1.0.9", "1.0.10", "1.00.11", "2", "1:0.1"]
    for place, version in enumerate(order):
        labels = {"package.version": (version,)}
        for other, written in enumerate(order):
            query = parse(f'package.version >= "{written}"')
            assert parse(str(query)) == query
            assert matches(query, labels) is (place >= other), (version, written)
    assert str(parse("consumer.package.version < 2")) == 'consumer.package.version < "2"'
    assert matches(parse('package.version > "1"'), {"package.version": ("9" * 10_000,)})
    assert not matches(parse("kubernetes.label.package.version >= 2"), {"x": ("2",)})


@pytest.mark.parametrize("value", ["nan", "inf", "1e3", "1_000", " 5", "\u0665"])
def test_what_only_looks_like_a_number_is_none(value: str) -> None:
    assert not matches(parse("vuln.cvss >= 0"), {"vuln.cvss": (value,)})
    with pytest.raises(QueryError, match="compares numbers"):
        parse(f'vuln.cvss >= "{value}"')


@pytest.mark.parametrize(
    ("text", "line", "column"), [("a =", 1, 4), ("a = 1 and\n", 2, 1), ("", 1, 1), ("(a = 1", 1, 7)]
)
def test_what_ends_too_soon_is_told_where_it_ends(text: str, line: int, column: int) -> None:
    with pytest.raises(QueryError, match="found the end") as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_labels_that_differ_in_case_alone_are_one_with_both_values() -> None:
    labels = make_labels([("kubernetes.label.App", "a"), ("kubernetes.label.app", "b")])
    assert labels == {"kubernetes.label.app": ("a", "b")}
    for value in "ab":
        assert matches(parse(f'kubernetes.label.APP = "{value}"'), labels)
