"""The path of a scope from being seen to being enforced, and what has to hold at each step."""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.duration import format_duration
from ringfence.model.words import counted


class Stage(StrEnum):
    """How far a scope is, in this order."""

    OBSERVE = "observe"
    """Its flows are seen; it has no policies."""
    DISCOVER = "discover"
    """Its primary workspace has a version."""
    ANALYSE = "analyse"
    """That is held against all that arrives."""
    STAGED = "staged"
    """It is enforced at some nodes, on trial."""
    ENFORCED = "enforced"
    """It is enforced everywhere."""

    @property
    def next(self) -> "Stage | None":
        """The one after it."""
        stages = list(Stage)
        later = stages[stages.index(self) + 1 :]
        return later[0] if later else None


@dataclass(frozen=True, slots=True)
class Criteria:
    """What has to hold before a scope is led on; an operator sets them."""

    observe_seconds: int = 24 * 3600
    """For how long flows have to be seen before policies are proposed."""
    coverage: float = 0.99
    """The share of conversations that pass which the version has to allow, 0.99 for 99 %."""
    quiet_seconds: int = 24 * 3600
    """For how long the version has to be under analysis, with no misdropped conversation."""
    stage_seconds: int = 600
    """How long the trial at some nodes lasts."""
    threshold: float = 0.01
    """The share of the trial's conversations that may be dropped unforeseen."""
    demote: bool = True
    """Whether a misdropped conversation after promotion takes it back."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a scope; counts are of the last `quiet_seconds`."""

    stage: Stage
    observed_seconds: int
    analysed_seconds: int = 0
    permitted: int = 0
    escaped: int = 0
    misdropped: int = 0
    trial_conversations: int = 0
    trial_unforeseen: int = 0
    trial_revision: int = 0
    """Of the enforced set that is on trial with the scope's version at some nodes; 0 for none."""
    noise: int = 0
    """Of what escaped, what discovery takes for noise; looked at where coverage falls short."""
    beside: tuple[str, ...] = ()
    """Versions of workspaces above that it was judged beside lately, and that are not enforced."""
    deleted: tuple[str, ...] = ()
    """Likewise, of workspaces that were deleted."""

    @property
    def coverage(self) -> float:
        """The share of the conversations that passed, noise aside, which the version allows."""
        passing = self.permitted + self.escaped - self.noise
        return self.permitted / passing if passing else 0.0


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that has to hold, how it is now, and whether that is enough."""

    wanted: str
    now: str
    met: bool


def criteria_for(stage: Stage, criteria: Criteria, facts: Facts) -> list[Criterion]:
    """What has to hold before a scope enters a stage."""
    match stage:
        case Stage.OBSERVE | Stage.ANALYSE:
            return []
        case Stage.DISCOVER:
            wanted = f"flows are seen for {format_duration(criteria.observe_seconds)}"
            enough = facts.observed_seconds >= criteria.observe_seconds
            return [Criterion(wanted, _long(facts.observed_seconds), enough)]
        case Stage.STAGED:
            return _for_trial(criteria, facts)
        case Stage.ENFORCED:
            seen = counted(facts.trial_conversations, "conversation")
            told = f"{facts.trial_unforeseen} of {seen}"
            most = criteria.threshold * facts.trial_conversations
            good = facts.trial_conversations > 0 and facts.trial_unforeseen <= most
            wanted = f"the trial drops no more than {criteria.threshold:.2%} unforeseen"
            return [Criterion(wanted, told, good)]


def _for_trial(criteria: Criteria, facts: Facts) -> list[Criterion]:
    quiet = format_duration(criteria.quiet_seconds)
    passing = facts.permitted + facts.escaped - facts.noise
    coverage = facts.coverage
    more = f"; {facts.noise} more are noise" if facts.noise else ""
    why = f"it was judged beside it in the last {quiet}"
    above = (
        Criterion(f"{one}, above it, enforced, for {why}", "not enforced", False)
        for one in facts.beside
    )
    gone = (
        Criterion(
            f"under analysis for {quiet} without {one}, above it, which was deleted",
            f"it was judged beside it; `ringfence analysis stop {one}` if that goes on",
            False,
        )
        for one in facts.deleted
    )
    together = f" beside {', '.join(facts.beside)}" if facts.beside else ""
    return [
        *above,
        *gone,
        Criterion(
            f"under analysis for {quiet}{together}",
            _long(facts.analysed_seconds),
            facts.analysed_seconds >= criteria.quiet_seconds,
        ),
        Criterion(
            f"coverage at least {criteria.coverage:.2%}",
            f"{coverage:.2%} of {counted(passing, 'conversation')}{more}",
            passing > 0 and coverage >= criteria.coverage,
        ),
        Criterion(
            f"no misdropped conversation for {quiet}",
            counted(facts.misdropped, "misdropped conversation"),
            facts.misdropped == 0 and facts.analysed_seconds >= criteria.quiet_seconds,
        ),
    ]


def _long(seconds: int) -> str:
    for unit in (86400, 3600, 60):
        if seconds >= unit:
            return format_duration(seconds // unit * unit)
    return format_duration(seconds) if seconds else "not yet"
