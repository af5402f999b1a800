"""Secrets that the database keeps: sealed with a key that it does not have.

A sealed secret is the base64 of a nonce and of what AES-256-GCM makes of it. It opens
only for what it was sealed for, so that nobody who can write to the database has it sent elsewhere.
"""

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence.control.errors import StartError
from ringfence.control.files import write_private
from ringfence.model.errors import InputError

_KEY_BITS, _NONCE_BYTES = 256, 12


class Secrets:
    """Seals and opens secrets; an empty one, which stands for none, stays as it is."""

    def __init__(self, key: bytes) -> None:
        self._key = AESGCM(key)

    @classmethod
    def load(cls, directory: Path) -> "Secrets":
        """With the key kept in `secrets.key`, made on first use; raises StartError."""
        file = directory / "secrets.key"
        try:
            if not file.exists():
                write_private(file, AESGCM.generate_key(_KEY_BITS))
            return cls(file.read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(
                f"{file} cannot be read: {error}; restore it, or remove it and add every alert sink"
                " that has a secret anew"
            ) from error

    def seal(self, secret: str, about: str) -> str:
        """A secret as the database may have it, for what it is `about`."""
        if not secret:
            return ""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._key.encrypt(nonce, secret.encode(), about.encode())
        return base64.b64encode(sealed).decode()

    def open(self, sealed: str, about: str) -> str:
        """The secret; raises InputError, which tells nothing of it."""
        if not sealed:
            return ""
        try:
            words = base64.b64decode(sealed, validate=True)
            nonce, rest = words[:_NONCE_BYTES], words[_NONCE_BYTES:]
            return self._key.decrypt(nonce, rest, about.encode()).decode()
        except (InvalidTag, ValueError):
            raise InputError(
                "its secret cannot be read with the key in secrets.key: add the sink anew"
            ) from None
