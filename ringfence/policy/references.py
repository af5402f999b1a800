"""What documents name of one another must be there, or the complaint says where it is named."""

from collections.abc import Sequence

from ringfence.policy.document import Documents
from ringfence.policy.fields import suggest


def check_references(given: Documents, held: Documents | None = None) -> None:
    """Look up all that `given` names, in it and in what is `held`.

    Raises DocumentError, with file, line and field, for the first name that stands for nothing.
    """
    all_of = (given, held or Documents())
    known: dict[str, Sequence[str]] = {
        "scope": [one.name for documents in all_of for one in documents.scopes],
        "filter": [one.name for documents in all_of for one in documents.filters],
        "address set": [one.name for documents in all_of for one in documents.address_sets],
    }
    for one in given.references:
        names = known[one.kind]
        if one.name not in names:
            near = suggest(one.name, names) or f", nor any other {one.kind}: give its file as well"
            raise one.field.error(f"there is no {one.kind} {one.name!r}{near}")
