"""Errors of the control plane; each knows the HTTP status that it becomes."""

from http import HTTPStatus

from ringfence.model.errors import RingfenceError


class ControlError(RingfenceError):
    """The control plane cannot do what was asked."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class StartError(ControlError):
    """The control plane cannot start; the message says what stands in the way."""


class UnauthenticatedError(ControlError):
    """A request without a token that is known and still valid."""

    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(ControlError):
    """A request by somebody who may not do this."""

    status = HTTPStatus.FORBIDDEN


class NotYetError(ControlError):
    """Asked too early: the same request will be served later."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class NotFoundError(ControlError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


class ConflictError(ControlError):
    """The request does not fit the present state."""

    status = HTTPStatus.CONFLICT
