"""What several files say as one: a proposal goes with the scopes that it was made for."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ringfence.model.address_set import AddressSet
from ringfence.model.errors import InputError
from ringfence.model.policy import Workspace
from ringfence.model.scope import InventoryFilter, Scope
from ringfence.policy.document import Documents
from ringfence.policy.references import check_references

_Named = TypeVar("_Named", Scope, InventoryFilter, AddressSet)


def together(read: Iterable[tuple[str, Documents]], note: Callable[[str], object]) -> Documents:
    """What files say, by their names, with all that they name of one another.

    What stands in several alike is one. A proposal holds workspaces of scopes above anew: of those
    that differ the last one given counts, which is noted. Raises InputError for others that differ.
    """
    files = list(read)
    documents = Documents(
        _once("scope", ((name, one) for name, part in files for one in part.scopes)),
        _last_given(((name, one) for name, part in files for one in part.workspaces), note),
        _once("filter", ((name, one) for name, part in files for one in part.filters)),
        _once("address set", ((name, one) for name, part in files for one in part.address_sets)),
        tuple(one for _, part in files for one in part.references),
    )
    check_references(documents)
    return documents


def _once(kind: str, given: Iterable[tuple[str, _Named]]) -> tuple[_Named, ...]:
    """Of documents by the file they stand in, each once; raises InputError where two differ."""
    held: dict[str, tuple[str, _Named]] = {}
    for file, one in given:
        first, before = held.setdefault(one.name, (file, one))
        if before != one:
            raise InputError(
                f"{kind} {one.name!r} stands in {first}, and otherwise in {file}: take it from one"
            )
    return tuple(one for _, one in held.values())


def _last_given(
    given: Iterable[tuple[str, Workspace]], note: Callable[[str], object]
) -> tuple[Workspace, ...]:
    held: dict[str, tuple[str, Workspace]] = {}
    for file, one in given:
        if one.name in held and held[one.name][1] != one:
            note(f"note: workspace {one.name} is as {file} has it, not {held[one.name][0]}")
        held[one.name] = file, one
    return tuple(one for _, one in held.values())
