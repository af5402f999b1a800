"""What a connector has to be told."""

from dataclasses import dataclass
from pathlib import Path

from ringfence.link.identity import LinkConfig
from ringfence.model.ids import ClusterId


@dataclass(frozen=True, slots=True)
class ConnectorConfig:
    """`kubeconfig` None means the pod's own service account.

    `identity_secret` (namespace, name) keeps the certificate in place of the link's `state_dir`.
    `annotations` are the keys of those that become labels; values over 256 bytes never do.
    """

    cluster: ClusterId
    link: LinkConfig
    kubeconfig: Path | None = None
    annotations: tuple[str, ...] = ()
    identity_secret: tuple[str, str] | None = None
