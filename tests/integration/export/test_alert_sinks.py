"""Notices of alerts at real receivers: HTTP, SMTP, syslog and Kafka."""

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from confluent_kafka import Consumer

from ringfence.control.pki import Authority
from ringfence.export.alerts.interface import Notice, Recommended
from ringfence.export.alerts.kinds import make_sink
from ringfence.export.alerts.syslog import encode
from ringfence.export.errors import ExportError, RefusedError
from ringfence.model.errors import InputError
from tests.integration.export.test_kafka import PASSWORD, Broker, broker  # noqa: F401

SECRET = "correct-horse"
NOTICE = Notice(
    "0123abcd", "opened", "escaped", "shop/front", 'shop/"db"]\\', "TCP", "3306",
    ["DENY shop/catch-all@p2"], 7, "2030-01-31T12:00:00.000Z", "2030-01-31T12:00:05.000Z",
)  # fmt: skip


RECOMMENDED = Recommended(
    "recommendation-shop", "shop", ["added front-to-db", "now unused old"], NOTICE.last
)


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent, and answers as it is told to."""

    url: str = ""
    status: int = 200
    got: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on loopback, over TLS if there is a context."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.got.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    made.url = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


async def test_a_webhook_gets_json_with_a_bearer_token(receiver: Receiver) -> None:
    sink = make_sink(f"webhook+http://{receiver.url}/hook", SECRET)
    await sink.send([NOTICE])
    ((path, headers, body),) = receiver.got
    assert (path, headers["authorization"]) == ("/hook", f"Bearer {SECRET}")
    assert body["title"].startswith("Ringfence alert opened: escaped shop/front → ")
    assert (body["conversations"], body["decided_by"]) == (7, NOTICE.decided_by)
    receiver.status = 503
    with pytest.raises(ExportError, match="503") as again:
        await sink.send([NOTICE])
    assert not isinstance(again.value, RefusedError)
    receiver.status = 403
    with pytest.raises(RefusedError, match="403"):
        await sink.send([NOTICE])


def served_by(directory: Path) -> ssl.SSLContext:
    """What a server of 127.0.0.1 needs, by the authority of `ca.pem` there."""
    now_ns = time.time_ns()
    certificate, key = Authority.load(directory, now_ns).server_certificate(["127.0.0.1"], now_ns)
    (directory / "server.pem").write_bytes(key + certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "server.pem")
    return context


async def test_a_webhook_over_tls_is_one_whose_certificate_is_trusted(tmp_path: Path) -> None:
    with receiving(served_by(tmp_path)) as receiver:
        url = f"webhook+https://{receiver.url}/hook"
        with pytest.raises(ExportError, match="ConnectError"):
            await make_sink(url, SECRET).send([NOTICE])
        assert receiver.got == []
        await make_sink(f"{url}?ca-file={tmp_path / 'ca.pem'}", SECRET).send([NOTICE])
        ((path, headers, _),) = receiver.got
        assert (path, headers["authorization"]) == ("/hook", f"Bearer {SECRET}")
    for wrong in (f"{url}?ca-file={tmp_path / 'none.pem'}", "webhook+http://h/?ca-file=x"):
        with pytest.raises(InputError, match="ca-file is"):
            make_sink(wrong, "")


async def test_mail_over_tls_from_the_start(tmp_path: Path) -> None:
    box = Mailbox()
    with mail_server(box, ssl_context=served_by(tmp_path)) as port:
        url = f"smtps://127.0.0.1:{port}?from=r@example.org&to=a@example.org"
        with pytest.raises(ExportError, match="SSLCertVerificationError"):
            await make_sink(url, "").send([NOTICE])
        await make_sink(f"{url}&ca-file={tmp_path / 'ca.pem'}", "").send([NOTICE])
    ((_, to, text),) = box.got
    assert (to, "Subject: Ringfence alert opened: escaped" in text) == (["a@example.org"], True)


async def test_many_notices_are_one_message_to_people(receiver: Receiver) -> None:
    many = [replace(NOTICE, id=str(number), port=str(number)) for number in range(38)]
    await make_sink(f"webhook+http://{receiver.url}/", "").send(many)
    await make_sink("slack:", f"http://{receiver.url}/").send(many)
    (_, _, body), (_, _, blocks) = receiver.got
    assert [one["id"] for one in (body, *body["more"])] == [one.id for one in many]
    assert blocks["text"].endswith("and 37 more")
    said = blocks["blocks"][1]["text"]["text"]
    assert (many[1].port in said, "and 17 more: see" in said) == (True, True)
    receiver.status = 403
    with pytest.raises(RefusedError) as refused:
        await make_sink(f"webhook+http://{receiver.url}/", "").send(many)
    assert refused.value.records == len(many)


async def test_slack_gets_blocks_and_its_url_is_never_told(receiver: Receiver) -> None:
    hook = f"http://{receiver.url}/services/T0/B0/{SECRET}"
    sink = make_sink("slack:", hook)
    evil = replace(NOTICE, consumer="<!channel>")
    await sink.send([evil])
    ((path, _, body),) = receiver.got
    assert path == f"/services/T0/B0/{SECRET}"
    assert [block["type"] for block in body["blocks"]] == ["header", "section"]
    assert "&lt;!channel&gt;" in body["text"]
    receiver.status = 500
    for wrong in (hook, "http://127.0.0.1:9/" + SECRET):
        with pytest.raises(ExportError) as raised:
            await make_sink("slack:", wrong).send([NOTICE])
        assert SECRET not in str(raised.value)
    with pytest.raises(InputError) as refused:
        make_sink("slack:", SECRET)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("webhook+http://h/", "correct-hörse"),
        ("webhook+http://h/", "correct\nhorse"),
        ("webhook+http://h:99999/", SECRET),
        ("webhook+http://h:port/", SECRET),
        ("webhook+http://[::1/", SECRET),
        ("webhook+http://[1::2::3]/", SECRET),
        ("webhook+http://xn--\u00fc/", SECRET),
        ("slack:", f"http://h:99999/{SECRET}"),
        ("slack:", f"http://[::1/{SECRET}"),
        ("slack:", f"http://h/\x00{SECRET}"),
        ("smtps://h?from=a@b&to=c@d&username=u", "correct-hörse"),
        ("smtps://h?from=a@b&to=ä@d&username=u", SECRET),
    ],
)
def test_a_sink_that_can_never_send_is_not_made(url: str, secret: str) -> None:
    with pytest.raises(InputError) as raised:
        make_sink(url, secret)
    assert secret not in str(raised.value)


async def test_an_error_tells_no_secret_whatever_it_is(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, place in ((f"webhook+http://{receiver.url}/", "_headers"),):
        sink = make_sink(url, SECRET)
        monkeypatch.setattr(sink, place, {"authorization": "Bearer correct-hörse"})
        with pytest.raises(ExportError, match="UnicodeEncodeError") as raised:
            await sink.send([NOTICE])
        assert "correct" not in str(raised.value)
        assert raised.value.__cause__ is None


@dataclass
class Mailbox:
    """What a mail server was given; it refuses the addresses of `unknown`."""

    got: list[Any] = field(default_factory=list)
    unknown: str = "550 no such user"
    refuse: bool = False

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if self.refuse:
            return self.unknown
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append((session.authenticated, envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


@contextmanager
def mail_server(box: Mailbox, **more: Any) -> Iterator[int]:
    controller = Controller(box, hostname="127.0.0.1", port=0, **more)
    controller.port = free_tcp_port()
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def free_tcp_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_mail_is_sent_over_starttls_with_a_password(tmp_path: Path) -> None:
    context = served_by(tmp_path)

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = (data.login, data.password) == (b"ringfence", SECRET.encode())
        return AuthResult(success=right, handled=False)

    box, ask = Mailbox(), {"tls_context": context, "authenticator": check, "auth_required": True}
    with mail_server(box, **ask) as port:
        url = (
            f"smtp+starttls://127.0.0.1:{port}?from=ringfence@example.org&to=a@example.org,"
            f"b@example.org&username=ringfence&ca-file={tmp_path / 'ca.pem'}"
        )
        await make_sink(url, SECRET).send([NOTICE])
        with pytest.raises(ExportError, match="does not take this") as raised:
            await make_sink(url, "wrong-secret").send([NOTICE])
        assert "wrong-secret" not in str(raised.value)
        await make_sink(url, SECRET).send([RECOMMENDED])
    (authenticated, to, text), (_, _, recommended) = box.got
    assert "Subject: Ringfence recommends 2 changes for scope shop" in recommended
    assert "added front-to-db\r\nnow unused old\r\nsee `ringfence rec" in recommended
    assert (authenticated, to) == (True, ["a@example.org", "b@example.org"])
    assert "References: <alert-0123abcd@ringfence>" in text
    with pytest.raises(InputError, match="password needs"):
        make_sink("smtp://h?from=a@b&to=c@d&username=u", SECRET)


async def test_mail_that_is_refused_is_not_sent_again_and_a_missing_server_is_tried_again() -> None:
    box = Mailbox(refuse=True)
    with mail_server(box) as port:
        sink = make_sink(f"smtp://127.0.0.1:{port}?from=r@example.org&to=a@example.org", "")
        with pytest.raises(RefusedError, match="refused all"):
            await sink.send([NOTICE])
        box.unknown = "450 later"
        with pytest.raises(ExportError) as raised:
            await sink.send([NOTICE])
        assert not isinstance(raised.value, RefusedError)
        box.refuse = False
        await sink.send([NOTICE])
    with pytest.raises(ExportError, match="ConnectionRefused"):
        await sink.send([NOTICE])
    assert len(box.got) == 1


# RFC 5424 §6: header, one element of structured data with escaped values, message in UTF-8.
_MESSAGE = re.compile(
    r"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ([!-~]{1,255}) ringfence "
    r'(\d{1,128}) ALERT \[alert@32473((?: [!-~]{1,32}="(?:\\["\]\\]|[^"\]\\])*")+)\] \ufeff(.*)'
)


def check_syslog(message: bytes) -> None:
    read = _MESSAGE.fullmatch(message.decode())
    assert read, message
    assert int(read[1]) == 16 * 8 + 4
    assert 'provider="shop/\\"db\\"\\]\\\\"' in read[5]
    assert read[6] == NOTICE.title


async def test_syslog_over_udp_tcp_and_tls(tmp_path: Path) -> None:
    datagrams: asyncio.Queue[bytes] = asyncio.Queue()

    class Udp(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _: Any) -> None:
            datagrams.put_nowait(data)

    async def framed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = await reader.readuntil(b" ")
        datagrams.put_nowait(await reader.readexactly(int(length)))
        writer.close()

    context = served_by(tmp_path)
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(Udp, local_addr=("127.0.0.1", 0))
    plain = await asyncio.start_server(framed, "127.0.0.1", 0)
    secured = await asyncio.start_server(framed, "127.0.0.1", 0, ssl=context)
    ports = [one.sockets[0].getsockname()[1] for one in (plain, secured)]
    for url in (
        f"syslog+udp://127.0.0.1:{udp.get_extra_info('sockname')[1]}",
        f"syslog+tcp://127.0.0.1:{ports[0]}",
        f"syslog+tls://127.0.0.1:{ports[1]}?ca-file={tmp_path / 'ca.pem'}",
    ):
        await make_sink(url, "").send([NOTICE, RECOMMENDED])
        check_syslog(await asyncio.wait_for(datagrams.get(), 5))
        read = _MESSAGE.fullmatch((await asyncio.wait_for(datagrams.get(), 5)).decode())
        assert read
        assert (int(read[1]), read[6]) == (16 * 8 + 5, RECOMMENDED.title)
        assert 'changes="added front-to-db, now unused old"' in read[5]
    udp.close()
    for server in (plain, secured):
        server.close()
        await server.wait_closed()
    with pytest.raises(ExportError, match="refused"):
        await make_sink(f"syslog+tcp://127.0.0.1:{ports[0]}", "").send([NOTICE])


def test_a_long_recommendation_fits_a_datagram() -> None:
    changes = [f"added allow-frontend-{at}-to-backend-{at}" for at in range(3000)]
    message = encode(replace(RECOMMENDED, changes=changes), "host", 1)
    assert len(message) < 2000
    assert b"backend-19, and 2980 more" in message


@pytest.mark.timeout(300)
async def test_kafka_gets_json_by_alert(
    broker: Broker,  # noqa: F811
    tmp_path: Path,
) -> None:
    place = f"kafka+tls://127.0.0.1:{broker.tls}/alerts"
    url = f"{place}?ca-file={tmp_path / 'ca.pem'}&username=ringfence"
    async with broker.run():
        sink = make_sink(url, PASSWORD)
        another = replace(NOTICE, id="4567")
        await sink.send([NOTICE, another, RECOMMENDED])
        await sink.close()
        consumer = Consumer(
            {
                "bootstrap.servers": f"127.0.0.1:{broker.plain}",
                "group.id": "test",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe(["alerts"])
        got = await asyncio.to_thread(consumer.consume, 3, 30)
        consumer.close()
    told = {one.key(): json.loads(one.value() or b"") for one in got}
    assert told == {one.id.encode(): one.fields() for one in (NOTICE, another, RECOMMENDED)}
