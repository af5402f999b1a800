"""What is read of others' suites."""

import pytest

from ringfence.lab.conformance import _AGNHOST, _RESULT, Spec, leaves


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "--- PASS: TestConformance/Gress/Should_deny (0.52s)",
            ("PASS", "Gress/Should_deny", "0.52"),
        ),
        ("    --- FAIL: TestConformance/Gress (11.00s)", ("FAIL", "Gress", "11.00")),
        ("--- PASS: TestConformance (300.00s)", None),
        ("--- SKIP: TestConformance/Gress (0.00s)", None),
    ],
)
def test_results_of_go_tests_are_read(line: str, told: tuple[str, ...] | None) -> None:
    found = _RESULT.fullmatch(line)
    assert (found.groups() if found else None) == told


def test_images_are_found_by_name_and_version() -> None:
    text = "  image: registry.k8s.io/e2e-test-images/agnhost:2.45\nexample.org/agnhost-other:1\n"
    assert _AGNHOST.findall(text) == ["registry.k8s.io/e2e-test-images/agnhost:2.45"]


def test_a_test_with_others_within_counts_where_it_failed_by_itself() -> None:
    whole, broken = Spec("A", 1.0, "it failed"), Spec("A/x", 1.0, "it failed")
    assert leaves([Spec("A", 1.0, ""), Spec("A/x", 1.0, "")]) == [Spec("A/x", 1.0, "")]
    assert leaves([whole, broken]) == [broken]
    assert leaves([whole, Spec("A/x", 1.0, "")]) == [whole, Spec("A/x", 1.0, "")]
