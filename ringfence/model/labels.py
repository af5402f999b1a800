"""Labels: what is known of an inventory item, with the source in the key.

Keys match case-insensitively, so they are kept in lower case. A key may carry several values
(an address per family, a CVE per package), so a value is always a tuple.
"""

from collections.abc import Iterable, Mapping

Labels = Mapping[str, tuple[str, ...]]

ADDRESS = "address"
KIND = "kind"
NAME = "name"
ADDRESS_TYPE = "address.type"
"""What the address of a flow's end says by itself: `inventory.outside`."""
USER_PREFIX = "user."
"""Of labels that people upload for addresses."""
KUBERNETES_PREFIX = "kubernetes."
CLUSTER = "kubernetes.cluster"
NAMESPACE = "kubernetes.namespace"
NODE = "kubernetes.node"
SERVICE_ACCOUNT = "kubernetes.service_account"
OWNER_KIND = "kubernetes.owner.kind"
OWNER_NAME = "kubernetes.owner.name"
LABEL_PREFIX = "kubernetes.label."
NAMESPACE_LABEL_PREFIX = "kubernetes.namespace.label."
ANNOTATION_PREFIX = "kubernetes.annotation."
NET_ADMIN = "kubernetes.net_admin"
"""Of a pod that may change the rules in its own network namespace: `true`."""
POLICY_KIND = "kubernetes.policy.kind"
CVE = "vuln.cve"
CVSS = "vuln.cvss"
KEV = "vuln.kev"
"""Whether a vulnerability is in CISA's catalogue of exploited ones."""
PACKAGE_NAME = "package.name"
PACKAGE_VERSION = "package.version"
"""What is in a workload's image; each comparison holds for any of its packages."""


def make_labels(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Collect (key, value) pairs: keys in lower case and sorted, values sorted and distinct."""
    collected: dict[str, set[str]] = {}
    for key, value in pairs:
        collected.setdefault(key.lower(), set()).add(value)
    return {key: tuple(sorted(collected[key])) for key in sorted(collected)}


def inexact(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Of Kubernetes' labels those that keys in lower case do not tell as they are, sorted.

    To Kubernetes `App` and `app` are two labels: all spellings of a key are among them if one has
    a capital letter. Hardly any label has, so that most items need none.
    """
    folded = {key.lower() for key in given if key != key.lower()}
    return tuple(sorted(pair for pair in given.items() if pair[0].lower() in folded))


def exact(held: Labels, inexact_ones: Iterable[tuple[str, str]]) -> dict[str, str]:
    """An item's Kubernetes labels as its object has them."""
    spelled = dict(inexact_ones)
    folded = {key.lower() for key in spelled}
    told = {
        key.removeprefix(LABEL_PREFIX): values[0]
        for key, values in held.items()
        if key.startswith(LABEL_PREFIX)
    }
    return {key: value for key, value in told.items() if key not in folded} | spelled
