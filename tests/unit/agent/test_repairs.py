"""What an agent tells of rules that another changed."""

from pathlib import Path

from ringfence.agent.pods import Place
from ringfence.agent.repairs import Repairs
from ringfence.model.repair import Damage, Repair
from ringfence.wire.limits import MOST_REPAIRS

POD, GONE, *MORE = (
    Place(str(number), Path(f"/run/netns/{number}"), number) for number in range(MOST_REPAIRS + 3)
)


def test_a_repair_is_told_once_the_rules_are_in_force_again() -> None:
    repairs = Repairs()
    repairs.notice(POD, Damage.RULES)
    repairs.notice(POD, Damage.UNPROVED)  # of what stands there since
    repairs.made([], [POD], 1)
    assert repairs.told() == []
    repairs.made([POD], [], 2)
    repairs.made([POD], [], 3)
    assert repairs.told() == [Repair(POD.uid, Damage.RULES, 2, 1)]
    repairs.notice(POD, Damage.TAKEN_AWAY)
    repairs.made([POD], [], 4)
    assert repairs.told() == [Repair(POD.uid, Damage.TAKEN_AWAY, 4, 2)]


def test_who_is_gone_was_not_repaired() -> None:
    repairs = Repairs()
    repairs.notice(GONE, Damage.RULES)
    repairs.made([], [], 1)
    repairs.made([GONE], [], 2)
    assert repairs.told() == []


def test_the_latest_are_told() -> None:
    repairs = Repairs()
    for at_ns, place in enumerate([*MORE[:-1], MORE[0], MORE[-1]]):
        repairs.notice(place, Damage.SETS)
        repairs.made([place], [], at_ns)
    told = [one.uid for one in repairs.told()]
    assert told == [one.uid for one in [*MORE[2:-1], MORE[0], MORE[-1]]]
