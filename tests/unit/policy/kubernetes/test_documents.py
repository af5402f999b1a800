"""Files of absurd shape cost little; what is broken is passed over and told."""

import pytest

from ringfence.policy.errors import ManifestError
from ringfence.policy.kubernetes.documents import MAX_BYTES, Folder


def test_lists_are_opened_and_broken_documents_are_told() -> None:
    folder = Folder()
    folder.add(
        "pods.yaml", b"kind: PodList\napiVersion: v1\nitems: [{metadata: {name: p}}]\n---\n1\n"
    )
    folder.add("all.json", b'{"kind": "List", "items": [{"kind": "Service"}, null]}')
    folder.add("broken.yaml", b"kind: Pod\n---\na: [\n")
    assert [one.kind for one in folder.manifests] == ["Pod", "Service", "Pod"]
    assert [one.partition(":")[0] for one in folder.warnings] == ["broken.yaml"]


@pytest.mark.parametrize(
    "content",
    [
        b"a0: &a0 [x, x]\n"
        + b"\n".join(b"a%d: &a%d [*a%d, *a%d]" % (n, n, n - 1, n - 1) for n in range(1, 60)),
        b"a: &a [*a]",
        b" " * (MAX_BYTES + 1),
    ],
    ids=["billion laughs", "contains itself", "large"],
)
def test_absurd_sizes_are_refused(content: bytes) -> None:
    with pytest.raises(ManifestError, match="expected at most"):
        Folder().add("hostile.yaml", content)


def test_very_deep_documents_end_no_process() -> None:
    folder = Folder()
    deep = (
        b"- " * 100_000,
        b"? " * 100_000,
        b"[" * 100_000,
        b'["]",' * 100_000,
        b'{"a":' * 100_000,
    )
    for number, content in enumerate(deep):
        folder.add(f"deep{number}.yaml", content)
    assert folder.manifests == []
    assert len(folder.warnings) == len(deep)
