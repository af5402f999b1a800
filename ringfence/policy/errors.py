"""The root of what the policy room raises."""

from ringfence.model.errors import InputError, RingfenceError


class PolicyError(RingfenceError):
    """Policy that cannot be read, understood or turned into rules."""


class DocumentError(PolicyError, InputError):
    """A YAML document that says nothing sound; names the file, the line (from 1) and the field."""

    def __init__(self, file_name: str, line: int, field: str, message: str) -> None:
        super().__init__(f"{file_name}:{line}: {field + ': ' if field else ''}{message}")
        self.file_name, self.line, self.field = file_name, line, field


class FieldError(PolicyError):
    """A field of an object that is not as it must be."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")


class ManifestError(PolicyError):
    """A manifest that upstream would refuse; names file, document (from 1), object and field."""


class InexpressibleError(PolicyError):
    """What a policy says cannot be said in the form that is asked for."""


class UnprovableError(PolicyError):
    """What rules in a kernel mean is not known; the message names what they hold."""
