"""What is on trial: told, and followed to its end."""

import re
import time
from typing import Any

from ringfence.cli.client import Client
from ringfence.cli.output import tell
from ringfence.model.duration import parse_duration
from ringfence.model.errors import InputError
from ringfence.model.words import named

ANY_NODE = "any"
"""In the place of a node's name: one that the control plane picks."""
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
_LOOK_SECONDS = 0.5
_FOR, _THRESHOLD = "5m", "1%"


def trial_body(
    confirm: str | None,
    stage: list[str] | None = None,
    for_: str | None = None,
    threshold: str | None = None,
) -> dict[str, Any]:
    """What a request says of a trial, nothing for none; raises InputError."""
    if not stage and (for_, threshold) != (None, None):
        raise InputError("--for and --threshold go with --stage")
    if confirm is not None and stage:
        raise InputError("--stage is judged by what is seen: leave --confirm out")
    if confirm is not None:
        return {"confirm_seconds": parse_duration(confirm)}
    if not stage:
        return {}
    names = [name for text in stage for name in text.split(",")]
    threshold = _THRESHOLD if threshold is None else threshold
    share = _SHARE.fullmatch(threshold)
    if share is None or float(share[1]) > 100:  # noqa: PLR2004 - per cent
        raise InputError(f"--threshold {threshold!r}: write a percentage, such as 1%")
    return {
        "stage": {
            "nodes": [] if names == [ANY_NODE] else names,
            "seconds": parse_duration(_FOR if for_ is None else for_),
            "threshold": float(share[1]) / 100,
        }
    }


def tell_trial(state: dict[str, Any]) -> None:
    """Say on stderr what is on trial, and what becomes of it."""
    trial = state["trial"]
    if not trial:
        return
    before = [f"{one['name']}@p{one['version']}" for one in trial["workspaces_before"]]
    left = f"{trial['seconds_left']:.0f} s"
    if cluster := trial["kubernetes_cluster"]:
        again = (
            "no longer enforced" if cluster in state["kubernetes_clusters"] else "enforced again"
        )
        tell(
            f"the change for Kubernetes cluster {cluster} is on trial: in {left} its policies are"
            f" {again}, unless you run `ringfence confirm`"
        )
    elif stage := trial["stage"]:
        tell(
            f"revision {trial['revision']} is on trial at {named(stage['nodes'])}: in {left} it is"
            f" enforced everywhere, or {named(before) or 'nothing'} again if more than"
            f" {stage['threshold']:.2%} is dropped unforeseen; by now {_seen(stage)}"
        )
    else:
        tell(
            f"revision {trial['revision']} is on trial: in {left}"
            f" {named(before) or 'nothing'} is enforced again, unless you run"
            f" `ringfence confirm {trial['revision']}`"
        )


def follow_stage(client: Client, revision: int) -> bool:
    """Show progress until a staged trial is over, and its end; whether the revision stays."""
    from ringfence.cli.progress import shown  # noqa: PLC0415

    with shown() as progress, progress.step(f"revision {revision} on trial") as note:
        while (trial := client.get("/enforcement")["trial"]) and trial["revision"] == revision:
            note(f"{trial['seconds_left']:.0f} s left, {_seen(trial['stage'])}")
            time.sleep(_LOOK_SECONDS)
    (last,) = client.get("/changes", object="enforcement", limit=1)["items"]
    tell("; ".join([last["what"], *last["difference"]]))
    return bool(client.get("/enforcement")["revision"] == revision)


def _seen(stage: dict[str, Any]) -> str:
    return f"{stage['unforeseen']} of {stage['conversations']} conversations dropped unforeseen"
