"""A connector's identity in a Kubernetes Secret, which outlives its pods and goes to any node."""

from dataclasses import dataclass

from ringfence.kube.client import KubeClient
from ringfence.kube.errors import KubeError
from ringfence.link.errors import LinkError
from ringfence.link.identity import Identity, decode, encode

_KEY = "identity.json"


@dataclass(frozen=True, slots=True)
class SecretStore:
    """Keeps the identity in a Secret that is there and that the connector may get and patch."""

    client: KubeClient
    namespace: str
    name: str

    def __str__(self) -> str:
        """Where the identity is."""
        return f"{_KEY} in Secret {self.namespace}/{self.name}"

    async def load(self) -> Identity | None:
        """The identity that was kept, None if there is none; raises LinkError."""
        try:
            held = await self.client.read_secret(self.namespace, self.name)
        except KubeError as error:
            raise LinkError(f"cannot tell whether this connector is enrolled: {error}") from error
        return decode(held[_KEY], str(self)) if _KEY in held else None

    async def keep(self, identity: Identity) -> None:
        """Keep it in place of the one before; raises LinkError."""
        try:
            await self.client.patch_secret(self.namespace, self.name, {_KEY: encode(identity)})
        except KubeError as error:
            raise LinkError(f"cannot keep the certificate: {error}") from error
