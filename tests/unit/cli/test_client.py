"""Which control plane a command talks to."""

import json
from pathlib import Path

import httpx
import pytest

from ringfence.cli.client import Client, Context, for_lab, load_context, save_context, segment
from ringfence.lab.config import LabConfig
from ringfence.model.errors import RingfenceError

LOGIN = "https://login:8443"
LAB = "https://127.0.0.1:36444"
ELSEWHERE = {"RINGFENCE_SERVER": "https://elsewhere", "RINGFENCE_TOKEN": "other"}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a login and a machine without a lab."""
    for name in ("SERVER", "TOKEN", "CA", "CONTEXT"):
        monkeypatch.delenv(f"RINGFENCE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    lab = LabConfig(run=tmp_path / "lab")
    monkeypatch.setattr("ringfence.lab.config.LabConfig", lambda: lab)
    return tmp_path


def _install_lab(places: Path) -> None:
    (places / "lab/ringfence").mkdir(parents=True)
    (places / "lab/ringfence/admin.token").write_text("of the lab\n")


@pytest.mark.parametrize(
    ("login", "lab", "environment", "expected"),
    [
        (True, True, {}, LOGIN),
        (True, False, {}, LOGIN),
        (False, True, {}, LAB),
        (False, False, {}, "ringfence login"),
        (True, True, {"RINGFENCE_CONTEXT": "lab"}, LAB),
        (True, True, {"RINGFENCE_CONTEXT": "lab", **ELSEWHERE}, LAB),
        (True, False, {"RINGFENCE_CONTEXT": "lab"}, "no lab with Ringfence in it runs"),
        (False, True, {"RINGFENCE_CONTEXT": "login"}, "ringfence login"),
        (True, True, {"RINGFENCE_CONTEXT": "prod"}, "may be `login` or `lab`"),
        (True, True, ELSEWHERE, "https://elsewhere"),
        (False, True, ELSEWHERE, "https://elsewhere"),
    ],
)
def test_which_control_plane_is_meant(
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
    login: bool,
    lab: bool,
    environment: dict[str, str],
    expected: str,
) -> None:
    if login:
        save_context(Context(LOGIN, "of the login", "ca.pem"))
    if lab:
        _install_lab(places)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not expected.startswith("https://"):
        with pytest.raises(RingfenceError, match=expected):
            load_context()
        return
    tokens = {LOGIN: "of the login", LAB: "of the lab", "https://elsewhere": "other"}
    context = load_context()
    assert (context.server, context.token) == (expected, tokens[expected])


def test_a_lab_takes_nobodys_login(places: Path) -> None:
    assert for_lab("ringfence agents") == "ringfence agents"
    path = save_context(Context(LOGIN, "the only copy", "ca.pem"))
    _install_lab(places)
    assert for_lab("ringfence agents") == "RINGFENCE_CONTEXT=lab ringfence agents"
    assert json.loads(path.read_text())["token"] == "the only copy"


@pytest.mark.parametrize(
    ("name", "path"),
    [("shop", "shop"), ("a/b", "a%2Fb"), ("a#b?c", "a%23b%3Fc"), ("../x", "..%2Fx")],
)
def test_a_name_stays_one_part_of_a_path(name: str, path: str) -> None:
    assert segment(name) == path
    with pytest.raises(RingfenceError):
        segment("..")


def test_what_is_no_login_is_said_in_a_line(places: Path) -> None:
    path = save_context(Context(LOGIN, "t", ""))
    path.write_text('["a list"]')
    with pytest.raises(RingfenceError, match="make it anew"):
        load_context()
    with pytest.raises(RingfenceError, match="the right file"):
        Client(Context(LOGIN, "tökén", ""))


def test_another_server_is_told_from_a_control_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Context(LOGIN, "t", ""))
    client._http.close()
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>hello</html>"))
    client._http = httpx.Client(base_url=LOGIN, transport=page)
    with client._http, pytest.raises(RingfenceError, match="no control plane of Ringfence"):
        client.get("/whoami")
