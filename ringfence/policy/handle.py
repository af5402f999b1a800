"""Names of rules: they say in a kernel listing and in a drop report which policy made a rule.

A handle is `stage/workspace/pVERSION/policy`, without the policy for a catch-all. Of the Kubernetes
layer it is `kubernetes/KIND/NAMESPACE/NAME/rule`.
It ends in `+widened` where the rule admits more than the policy says. It is at most 100 characters
of a harmless alphabet, so that it fits every kernel's rule comments: other characters stand as %XX,
and a name that is too long is cut and closed with `~` and a digest.
"""

import hashlib
from functools import lru_cache
from urllib.parse import quote, unquote

from ringfence.model.quarantine import QUARANTINE
from ringfence.model.verdict import Decision, Layer, Stage

MID_STREAM = "mid-stream"
"""The handle of the rule that drops TCP packets which open nothing: no policy judges those."""
NEW_POD = "new-pod"
"""The handle of the rule by which a node drops packets of pods that wait for their rules."""
_WIDENED = "+widened"
_MAX_NAME = 36
_MAX_KUBERNETES = 56
_DIGEST = 12
_REMEMBERED = 65_536
"""Names: each change says most of them again."""


def format_handle(decision: Decision, *, widened: bool = False) -> str:
    """The handle of the rule that made the decision."""
    if decision.layer is Layer.KUBERNETES:
        policy = _name(decision.policy or decision.stage, "/", _MAX_KUBERNETES)
        rule = f"/{_name(decision.rule)}" if decision.rule else ""
        return f"{Layer.KUBERNETES}/{policy}{rule}" + (_WIDENED if widened else "")
    workspace = _name(decision.workspace)
    parts = [decision.stage, workspace, f"p{decision.version}"]
    if decision.policy is not None:
        parts.append(_name(decision.policy, most=2 * _MAX_NAME - len(workspace)))
    return "/".join(parts) + (_WIDENED if widened else "")


def is_widened(handle: str) -> bool:
    """Whether the rule admits more than its policy says."""
    return handle.endswith(_WIDENED)


def as_written(handle: str) -> str:
    """The handle of the policy itself, whether the rule admits more or not."""
    return handle.removesuffix(_WIDENED)


def tell_decision(decision: Decision) -> str:
    """The rule that made a decision as people write it: `workspace/policy@pVERSION`, `catch-all`
    for no policy's.

    A quarantine has no versions and is `quarantine/policy`. Of the Kubernetes layer it is
    `KIND/NAMESPACE/NAME rule`, of a fail-safe `fail-safe/NAME`.
    """
    if decision.stage is Stage.FAIL_SAFE:
        return f"{Stage.FAIL_SAFE}/{decision.rule}"
    if decision.layer is Layer.KUBERNETES:
        return " ".join(filter(None, (decision.policy or decision.stage, decision.rule)))
    return _tell(decision.workspace, decision.policy, f"p{decision.version}")


def tell_handle(handle: str) -> str:
    """A handle as `tell_decision` has it.

    What is no handle of a decision, and a name's cut and digest, stay as they are.
    """
    match as_written(handle).split("/"):
        case [Layer.KUBERNETES, *policy, rule]:
            return " ".join(filter(None, ("/".join(map(unquote, policy)), unquote(rule))))
        case [_, workspace, version, *policy] if len(policy) <= 1:
            return _tell(unquote(workspace), unquote(policy[0]) if policy else None, version)
    return handle


def _tell(workspace: str, policy: str | None, version: str) -> str:
    at = "" if workspace == QUARANTINE else f"@{version}"
    return f"{workspace}/{policy or 'catch-all'}{at}"


@lru_cache(_REMEMBERED)
def _name(text: str, kept_as_is: str = "", most: int = _MAX_NAME) -> str:
    safe = quote(text, safe=kept_as_is).replace("~", "%7E")
    if len(safe) <= most:
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    # A cut must not split an escape.
    kept = safe[: most - _DIGEST - 1]
    for tail in (1, 2):
        if kept[-tail] == "%":
            kept = kept[:-tail]
            break
    return f"{kept}~{digest}"
