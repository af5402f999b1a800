"""What applying documents would change, decided without doing it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ringfence.inventory.contents import Sets, sets_with
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.quarantine import QUARANTINE
from ringfence.model.scope import ScopeTree
from ringfence.policy.difference import Change, difference
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.moment import Moment
from ringfence.policy.order import PolicySet
from ringfence.policy.references import check_references
from ringfence.policy.unmatched import unmatched


def read_files(files: Iterable[tuple[str, str]]) -> Documents:
    """The documents of several files, (name, text); raises InputError, for doubles as well."""
    read = [parse_documents(text, name) for name, text in files]
    documents = Documents(
        tuple(scope for one in read for scope in one.scopes),
        tuple(workspace for one in read for workspace in one.workspaces),
        tuple(held for one in read for held in one.filters),
        tuple(held for one in read for held in one.address_sets),
        tuple(reference for one in read for reference in one.references),
    )
    named = [
        *(f"filter {held.name!r}" for held in documents.filters),
        *(f"address set {held.name!r}" for held in documents.address_sets),
        *(f"scope {scope.name!r}" for scope in documents.scopes),
        *(f"workspace {workspace.name!r}" for workspace in documents.workspaces),
    ]
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        raise InputError(f"{twice[0]} stands in two files")
    return documents


def decide(held: Documents, given: Documents) -> list[Change]:
    """What `given` changes in what is `held`; nothing is ever deleted.

    Raises InputError where the outcome would be unsound.
    """
    check_references(given, held)
    workspaces = {one.name: one for one in (*held.workspaces, *given.workspaces)}
    tree = tree_with(held, given)
    sets = sets_with({one.name: () for one in held.address_sets}, given.address_sets)
    _check(tree, sets, workspaces.values())
    scope_names = {scope.name for scope in given.scopes}
    workspace_names = {workspace.name for workspace in given.workspaces}
    filter_names = {one.name for one in given.filters}
    set_names = {one.name for one in given.address_sets}
    touched = Documents(
        tuple(scope for scope in held.scopes if scope.name in scope_names),
        tuple(one for one in held.workspaces if one.name in workspace_names),
        tuple(one for one in held.filters if one.name in filter_names),
        tuple(one for one in held.address_sets if one.name in set_names),
    )
    return difference(touched, given)


def tree_with(held: Documents, given: Documents) -> ScopeTree:
    """The scopes and filters that are held, with those that are given in their place."""
    scopes = {scope.name: scope for scope in (*held.scopes, *given.scopes)}
    filters = {one.name: one for one in (*held.filters, *given.filters)}
    return ScopeTree(scopes.values(), filters.values())


def named_in_vain(held: Documents, given: Documents, policies: PolicySet) -> Iterator[str]:
    """One line for each thing that a policy names which the given documents add or change, and
    that the inventory does not have; `policies` has at least the workspaces that are given.

    Nothing is told while the inventory is empty.
    """
    before = {(one.name, policy) for one in held.workspaces for policy in one.policies}
    changed = [
        replace(one, policies=tuple(it for it in one.policies if (one.name, it) not in before))
        for one in given.workspaces
    ]
    for one in unmatched(policies, changed) if policies.snapshot.items else ():
        yield f"{one.workspace}/{one.policy}: {one.why}"


def _check(tree: ScopeTree, sets: Sets, workspaces: Iterable[Workspace]) -> None:
    """Every name that a workspace uses must mean something in the tree."""
    nothing, moment = Snapshot([]), Moment(sets=sets)
    primary: dict[ScopeName, WorkspaceName] = {}
    for workspace in workspaces:
        if workspace.name == QUARANTINE:
            raise InputError(
                f"a workspace called {QUARANTINE!r}: decisions of `ringfence quarantine` are told "
                "under that name, so choose another"
            )
        try:
            PolicySet(nothing, tree, [(workspace, Version(0))], moment)
        except InputError as error:
            raise InputError(f"workspace {workspace.name!r}: {error}") from error
        if workspace.primary:
            other = primary.setdefault(workspace.scope, workspace.name)
            if other != workspace.name:
                raise InputError(
                    f"scope {workspace.scope!r} has two primary workspaces, {other!r} and "
                    f"{workspace.name!r}: make one of them `primary: false`"
                )
