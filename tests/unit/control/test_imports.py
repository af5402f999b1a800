"""The name of an imported workspace is one that documents may have."""

import pytest
from pydantic import ValidationError

from ringfence.control.api.imports import ImportRequest


@pytest.mark.parametrize("name", ["", "a/b", "kube@p1", " ", "x\n", "a" * 254])
def test_names_that_no_document_may_have_are_refused(name: str) -> None:
    assert ImportRequest(workspace="kube-1.a").workspace
    with pytest.raises(ValidationError):
        ImportRequest(workspace=name)
