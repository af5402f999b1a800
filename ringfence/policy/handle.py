"""Names of rules: they say in a kernel listing and in a drop report which policy made a rule.

A handle is `stage/workspace/pVERSION/policy`, without the policy for a catch-all, and ends in
`+widened` where the rule admits more than the policy says. It is at most 100 characters of a
harmless alphabet, so that it fits every kernel's rule comments: other characters stand as %XX,
and a name that is too long is cut and closed with `~` and a digest.
"""

import hashlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ringfence.model.ids import PolicyId, Version, WorkspaceName
from ringfence.model.verdict import Decision, Stage
from ringfence.policy.errors import PolicyError

MIDSTREAM = "midstream"
"""The handle of no policy's rule: of the one that drops TCP packets without a connection."""
_WIDENED = "+widened"
_MAX_NAME = 36
_DIGEST = 12


@dataclass(frozen=True, slots=True)
class HandleParts:
    """What a handle says. Names that were cut are as they stand in the handle."""

    stage: Stage
    workspace: WorkspaceName
    version: Version
    policy: PolicyId | None
    widened: bool


def format_handle(decision: Decision, *, widened: bool = False) -> str:
    """The handle of the rule that made the decision."""
    parts = [decision.stage, _name(decision.workspace), f"p{decision.version}"]
    if decision.policy is not None:
        parts.append(_name(decision.policy))
    return "/".join(parts) + (_WIDENED if widened else "")


def parse_handle(handle: str) -> HandleParts:
    """Read what `format_handle` wrote; raises PolicyError."""
    stage, *rest = handle.removesuffix(_WIDENED).split("/")
    try:
        workspace, version, *policy = rest
        return HandleParts(
            Stage(stage),
            WorkspaceName(unquote(workspace)),
            Version(int(version.removeprefix("p"))),
            PolicyId(unquote(policy[0])) if policy else None,
            handle.endswith(_WIDENED),
        )
    except ValueError as error:
        raise PolicyError(f"{handle!r} is not the handle of a rule") from error


def _name(text: str) -> str:
    safe = quote(text, safe="").replace("~", "%7E")
    if len(safe) <= _MAX_NAME:
        return safe
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    # A cut must not split an escape.
    kept = safe[: _MAX_NAME - _DIGEST - 1]
    for tail in (1, 2):
        if kept[-tail] == "%":
            kept = kept[:-tail]
            break
    return f"{kept}~{digest}"
