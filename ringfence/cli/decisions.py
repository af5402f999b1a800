"""Deciding rules as the command line tells them."""

from ringfence.cli.output import Row
from ringfence.model.quarantine import QUARANTINE
from ringfence.model.verdict import Layer, Stage


def decided_by(decision: Row | None) -> str:
    """`ACTION workspace/policy@pN (stage)`; empty for an end that does not decide.

    Of the Kubernetes layer: `ACTION KIND/NAMESPACE/NAME rule of workspace@pN (stage)`; of what
    passes whatever policies say: `ALLOW fail-safe: NAME`.
    """
    if not decision:
        return ""
    if decision["stage"] == Stage.FAIL_SAFE:
        return f"{decision['action']} {Stage.FAIL_SAFE}: {decision['rule']}"
    if decision["layer"] == Layer.KUBERNETES:
        said = " ".join(filter(None, (decision["policy"] or "no policy", decision["rule"])))
        held = f" of {decision['workspace']}@p{decision['version']}" * bool(decision["workspace"])
        return f"{decision['action']} {said}{held} (Kubernetes, {decision['stage']})"
    if decision["workspace"] == QUARANTINE:
        said = f", {decision['policy']}" if decision["policy"] else ""
        return f"{decision['action']} quarantine of {decision['scope']}{said} (absolute)"
    name = decision["policy"] or "catch-all"
    return (
        f"{decision['action']} {decision['workspace']}/{name}@p{decision['version']}"
        f" ({decision['stage']})"
    )
