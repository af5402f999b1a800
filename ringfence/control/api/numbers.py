"""Numbers that clients send, within what every database keeps."""

from typing import Annotated

from pydantic import Field

from ringfence.model.ids import LAST_VERSION

VersionNumber = Annotated[int, Field(ge=1, le=LAST_VERSION)]
"""A version of a workspace."""
RowNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""The number of a row that only grows."""
