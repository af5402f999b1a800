"""Errors as HTTP answers: problem documents (RFC 9457) that say what is wrong and what to do."""

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ringfence.control.errors import ControlError
from ringfence.model.errors import InputError, RingfenceError
from ringfence.store.errors import StaleError, StoreError

_LOG = structlog.get_logger(__name__)
_MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong; `detail` is for a person."""

    title: str
    detail: str
    status: int


def install(app: FastAPI) -> None:
    """Have every error of the app answered as a problem."""
    app.add_exception_handler(RingfenceError, _ringfence_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


def _answer(status: int, detail: str) -> JSONResponse:
    problem = Problem(title=HTTPStatus(status).phrase, detail=detail, status=status)
    unauthorized = status == HTTPStatus.UNAUTHORIZED
    headers = {"WWW-Authenticate": "Bearer"} if unauthorized else None
    return JSONResponse(problem.model_dump(), status, headers=headers, media_type=_MEDIA_TYPE)


def _status(error: Exception) -> HTTPStatus:
    match error:
        case ControlError():
            return error.status
        case StaleError():
            return HTTPStatus.CONFLICT
        case StoreError():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case InputError():
            return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.INTERNAL_SERVER_ERROR


async def _ringfence_error(request: Request, error: Exception) -> JSONResponse:
    status = _status(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("request failed", path=request.url.path, reason=str(error))
    return _answer(status, str(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [
        f"{'.'.join(str(part) for part in one['loc'][1:]) or one['loc'][0]}: {one['msg']}"
        for one in error.errors()
    ]
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(wrong))


async def _http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("request failed", path=request.url.path, exc_info=error)
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "an error inside the control plane; its log has more"
    )
