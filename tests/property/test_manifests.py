"""A small share of the fuzzing of manifests, which `fuzz_manifests` does at length."""

from tests.property.fuzz_manifests import fuzz


def test_manifests_are_evaluated_or_refused() -> None:
    found: list[tuple[int, BaseException]] = []
    counts = fuzz(range(300), lambda seed, error: found.append((seed, error)))
    assert found == []
    assert min(counts["evaluated"], counts["refused"]) > 50
