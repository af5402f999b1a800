"""What becomes of an edge that was observed, and the words for why."""

from enum import StrEnum


class Outcome(StrEnum):
    """Where an edge ends. What nobody approved in review is denied, as noise is."""

    ALLOW = "ALLOW"
    REVIEW = "review"
    NOISE = "noise"


class Reason(StrEnum):
    """Why; docs/discovery.md tells of each."""

    SEEN = "seen: often enough, in several intervals"
    DECLARED = "declared: the consumer's own configuration names the provider"
    TWIN = "twin: the same application does so in another namespace"
    PUBLISHED = "published: from outside, through what the Service opens to the outside"
    GIVEN_OUT = "given-out: one of many ports that the provider gives out to this consumer"
    SPREAD = "spread: several of the consumer's workloads do so"
    FITS = "fits: seen once, but such an edge is likely between these ends"

    FEW = "few: one conversation, or all in one interval"
    ALONE = "alone: one of the consumer's workloads does what its like never do"
    FAN_OUT = "fan-out: together, what this source alone began is suspicious"
    LATE = "late: first seen in the last fifth of the time"
    FOREIGN = "foreign: these namespaces have no other such edge"
    BYPASS = "bypass: dialled past the Service that others use"
    STRANGER = "stranger: a node, or somebody of whom nothing else is known"
    UNUSUAL = "unusual: it does not fit among the edges that are known"
    TOOL = "tool: done by a process that does nothing else here"

    SCAN = "scan: the source tried many ends and most did not answer"
    INTRUDER = "intruder: one source alone began many such edges"
    ONE_OFF = "one-off: a single probe by hand, from a node or by ICMP"
    DROPPED = "dropped: no packet was answered, and drops were reported"
    REFUSED = "refused: the provider answered none"
    DEAD = "dead: nobody holds the address any more"
    UNANSWERED = "unanswered: no reply was seen"
    BROADCAST = "broadcast: sent to a group or to the link, which no policy governs"
    METADATA = "metadata: the cloud's metadata service, which gives out credentials"
    REVERSED = "reversed: replies, or a conversation told from its wrong end"
    EPHEMERAL = "ephemeral: a port that clients get, and nobody was seen to open"
    EXCLUDED = "excluded: by a filter of the one who asked"

    DNS = "dns: a core service, in a named policy"
    PROBE = "probe: a health check from the workload's own node, in a named policy"
    API_SERVER = "api-server: a core service, in a named policy"
    NTP = "ntp: a core service, in a named policy"
    KUBELET = "kubelet: a port of the node's own, in a named policy where a workload asks"


CORE = (Reason.DNS, Reason.PROBE, Reason.API_SERVER, Reason.NTP, Reason.KUBELET)
"""Of these a named policy is made."""
