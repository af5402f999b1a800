"""What stands compiled is brought up to date no further than a change reaches."""

from dataclasses import replace

import pytest

from ringfence.control.compilation import Standing
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import News
from ringfence.model.ids import RevisionId, Version
from ringfence.model.policy import Direction
from ringfence.model.quarantine import Quarantine
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy import compiler
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings
from ringfence.policy.order import Entry, entry_rules
from ringfence.policy.program import decode
from tests.unit.control.shop import DB, FRONT, NODE, item
from tests.unit.control.test_plan import SHOP, TREE

JUDGED_BY = JudgedBy(TREE, ((SHOP, Version(1)),))
EVERYTHING = ["front-to-db", "INBOUND", "OUTBOUND"]


class Compiling:
    """A control plane's compilation, and which entries of the order it translated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._standing = Standing(Surroundings())
        self._translated: list[str] = []
        self._revision = 0

        def noted(place: int, entry: Entry, *args: object) -> object:
            said = entry[3]
            self._translated.append(said.name if isinstance(said, Direction) else said.id)
            return entry_rules(place, entry, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(compiler, "entry_rules", noted)

    def told(
        self,
        *items: Item,
        gone: Item | None = None,
        at_ns: int = 0,
        judged_by: JudgedBy = JUDGED_BY,
    ) -> list[str]:
        """The entries that are translated when items are so."""
        self._translated.clear()
        self._revision += 1
        news: dict[str, object] = {one.key: (RevisionId(self._revision), one) for one in items}
        if gone:
            news[gone.key] = None
        told: News = news  # type: ignore[assignment]
        self._standing.compile(judged_by, told, Moment(at_ns))
        return list(self._translated)


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Compiling:
    found = Compiling(monkeypatch)
    assert found.told(NODE, FRONT, DB) == EVERYTHING
    return found


def test_what_no_rule_is_about_translates_nothing(compiling: Compiling) -> None:
    assert compiling.told(item(ItemKind.SERVICE, "other", "10.96.0.9")) == []


def test_a_pod_that_comes_touches_those_that_govern_it(compiling: Compiling) -> None:
    assert compiling.told(item(ItemKind.POD, "cart", "10.0.0.3")) == EVERYTHING


def test_a_label_touches_only_queries_that_choose_otherwise(compiling: Compiling) -> None:
    relabelled = item(ItemKind.POD, "db", "10.0.0.2")
    relabelled.labels["tier"] = ("data",)  # type: ignore[index]
    assert compiling.told(relabelled) == []
    relabelled = item(ItemKind.POD, "db", "10.0.0.2")
    relabelled.labels["name"] = ("elsewhere",)  # type: ignore[index]
    assert compiling.told(relabelled) == ["front-to-db"]


def test_a_node_that_comes_compiles_everything(compiling: Compiling) -> None:
    assert compiling.told(item(ItemKind.NODE, "n2", "192.0.2.2")) == EVERYTHING


def test_documents_that_are_read_anew_and_say_the_same_translate_nothing(
    compiling: Compiling,
) -> None:
    def read(*scopes: Scope) -> JudgedBy:
        return replace(JUDGED_BY, tree=ScopeTree(scopes, TREE.filters.values()))

    assert compiling.told(judged_by=read(*TREE.preorder())) == []
    root, *others = TREE.preorder()
    moved = replace(root, query=parse('name = "front" or name = "db"'))
    assert compiling.told(judged_by=read(moved, *others)) == EVERYTHING


def test_after_an_error_everything_is_compiled(
    compiling: Compiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(compiler, "touched", fail)
        with pytest.raises(RuntimeError):
            compiling.told(item(ItemKind.POD, "cart", "10.0.0.3"))
    assert compiling.told() == EVERYTHING


def test_a_quarantine_holds_though_the_clock_is_set_back() -> None:
    apart = Quarantine(NODE.cluster, "shop/front", parse('name = "front"'), (), "", "admin", 1000)
    judged_by, standing = JudgedBy(TREE, (), quarantines=(apart,)), Standing(Surroundings())
    news: News = {one.key: (RevisionId(1), one) for one in (NODE, FRONT, DB)}
    for at_ns in (1000, 900):
        (encoded,) = standing.compile(judged_by, news, Moment(at_ns)).nodes.values()
        assert [pod.name for pod in decode(encoded).pods] == ["front"]
