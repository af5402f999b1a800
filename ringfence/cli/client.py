"""The control plane as the command line sees it: JSON over HTTPS, one login kept per user."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.model.errors import InputError, RingfenceError

_CODES = re.compile(r"\[(Errno|SSL)[^]]*\] | \(_ssl\.c:\d+\)")
"""What Python says besides of why a connection failed."""


class ApiError(RingfenceError):
    """The control plane refused or could not be reached; the message says what to do."""


class UnauthenticatedError(ApiError):
    """No token, or one that the control plane does not accept."""


@dataclass(frozen=True)
class Context:
    """Where the control plane is and how to be let in. `ca` is a PEM file's path."""

    server: str
    token: str
    ca: str


CHOICE = "RINGFENCE_CONTEXT"
"""The environment variable that says which control plane is meant: `login` or `lab`."""


def context_path() -> Path:
    """The file that keeps the login, in the user's configuration directory."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "ringfence" / "context.json"


def save_context(context: Context) -> Path:
    """Keep the context for later commands, readable by its owner alone."""
    path = context_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(asdict(context), indent=2) + "\n")
    temporary.rename(path)
    return path


def load_context() -> Context:
    """The login, each field overridden by RINGFENCE_SERVER, _TOKEN and _CA; without one, the lab's.

    RINGFENCE_CONTEXT=lab means the lab, whatever else is set; `login` never means it.
    """
    choice = os.environ.get(CHOICE, "")
    if choice not in {"", "login", "lab"}:
        raise InputError(f"{CHOICE} is {choice!r}; it may be `login` or `lab`")
    login = None if choice == "lab" else _login()
    lab = None if login or choice == "login" else _lab()
    if context := login or lab:
        return context
    raise ApiError(
        f"{CHOICE} is `lab`, and no lab with Ringfence in it runs here; make one as root with"
        " `ringfence lab up` and `ringfence lab install`"
        if choice == "lab"
        else "no control plane is known: run `ringfence login https://HOST:PORT --token-file FILE"
        " --ca FILE`, or `ringfence lab install` for one of your own"
    )


def for_lab(command: str) -> str:
    """The command as one writes it to mean the lab, also where somebody is logged in elsewhere."""
    return f"{CHOICE}=lab {command}" if _login() else command


def _login() -> Context | None:
    kept: dict[str, str] = {}
    path = context_path()
    if path.exists():
        try:
            kept = {str(key): str(value) for key, value in json.loads(path.read_text()).items()}
        except (ValueError, AttributeError) as error:
            raise ApiError(f"{path} is no login; make it anew with `ringfence login`") from error
    fields = {
        name: os.environ.get(f"RINGFENCE_{name.upper()}") or kept.get(name, "")
        for name in ("server", "token", "ca")
    }
    return Context(**fields) if fields["server"] else None


def _lab() -> Context | None:
    """The control plane of the lab on this machine; its files go with it."""
    from ringfence.lab.config import LabConfig  # noqa: PLC0415
    from ringfence.lab.install import installed  # noqa: PLC0415

    where = installed(LabConfig())
    try:
        return Context(where.server, where.token_file.read_text().strip(), str(where.ca))
    except OSError:
        return None


def segment(name: str) -> str:
    """A name as a part of a path; raises InputError for one that would mean another path."""
    if name in {"", ".", ".."}:
        raise InputError(f"{name!r} is no name")
    return quote(name, safe="")


class Client:
    """Calls the API and raises ApiError for a refusal, InputError where it is about the input."""

    def __init__(self, context: Context, timeout: float = 60.0) -> None:
        import ssl  # noqa: PLC0415

        import httpx  # noqa: PLC0415

        self._httpx = httpx
        self._server = context.server
        try:
            verify = ssl.create_default_context(cafile=context.ca or None)
        except OSError as error:
            raise ApiError(
                f"cannot read the CA certificate {context.ca!r} ({error.strerror or error});"
                " say where it is with `ringfence login` or RINGFENCE_CA"
            ) from error
        if not (context.token.isascii() and context.token.isprintable()):
            raise ApiError("the token has letters that no token has: is it the right file?")
        self._http = httpx.Client(
            base_url=context.server.rstrip("/"),
            headers={"Authorization": f"Bearer {context.token}"},
            verify=verify,
            timeout=timeout,
            trust_env=False,
        )

    def get(self, path: str, **query: Any) -> Any:
        """GET under /api/v1; query values that are None are left out."""
        return self._call("GET", path, query=query)

    @contextmanager
    def stream(self, path: str, timeout: float, **query: Any) -> Iterator[Iterator[bytes]]:
        """GET under /api/v1 a long answer, part by part.

        ApiError where it breaks off, or is silent for `timeout` seconds.
        """
        params = {key: value for key, value in query.items() if value is not None}
        begun = False
        try:
            with self._http.stream(
                "GET", f"/api/v1{path}", params=params, timeout=timeout
            ) as answer:
                if not answer.is_success:
                    raise _refusal(answer.status_code, answer.read().decode(errors="replace"))
                begun = True
                yield answer.iter_bytes()
        except self._httpx.TransportError as error:
            if begun:
                raise ApiError(
                    f"the answer of the control plane broke off: {_CODES.sub('', str(error))}"
                ) from error
            raise self._unreached(error) from error

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST a JSON body under /api/v1."""
        return self._call("POST", path, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE under /api/v1."""
        return self._call("DELETE", path, query=query)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        params = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, f"/api/v1{path}", params=params, json=body)
        except self._httpx.TransportError as error:
            raise self._unreached(error) from error
        if answer.is_success:
            try:
                return answer.json() if answer.content else None
            except ValueError as error:
                raise ApiError(f"{self._server} is no control plane of Ringfence") from error
        raise _refusal(answer.status_code, answer.text)

    def _unreached(self, error: Exception) -> ApiError:
        return ApiError(
            f"cannot reach the control plane at {self._server}: {_CODES.sub('', str(error))}."
            " Is it running, and is this its address?"
        )


def _refusal(status: int, text: str) -> RingfenceError:
    try:
        detail = json.loads(text).get("detail", text)
    except (ValueError, AttributeError):
        detail = text
    message = detail if isinstance(detail, str) else json.dumps(detail)
    if status == 401:  # noqa: PLR2004
        return UnauthenticatedError(f"{message} (see `ringfence login --help`)")
    if status == 422:  # noqa: PLR2004
        return InputError(message)
    return ApiError(message or f"the control plane answered {status}")


def connect() -> Client:
    """A client of the control plane that is meant."""
    return Client(load_context())
