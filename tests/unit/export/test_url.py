"""What `--export` is given, as a person writes it."""

import re
from pathlib import Path

import pytest

from ringfence.export.kinds import make_exporter, make_exporters
from ringfence.export.url import parse_url
from ringfence.model.errors import InputError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with one of"),
        ("syslog://host", "begin with one of"),
        ("jsonl:relative", "jsonl:///PATH"),
        ("jsonl://host/path", "jsonl:///PATH"),
        ("jsonl:///a?keep=0", "from 1 on"),
        ("jsonl:///a?keep=", "keep has no value"),
        ("jsonl:///a?keep", "bad query field"),
        ("jsonl:///a?size=1", "no option 'size'; there are: keep, max-mb"),
        ("jsonl:///a#b", "%23"),
        ("kafka://host", "/TOPIC"),
        ("kafka://host,:9092/topic", "HOST:PORT"),
        ("kafka://host/topic/more", "/TOPIC"),
        ("kafka://host/topic?username=u", "username is for kafka+tls"),
        ("kafka+tls://host/t?ca-file=/missing", "cannot be read"),
        ("kafka+tls://host/topic?username=u", "both username and password-file"),
        ("kafka+tls://host/t?username=u&password-file=/missing", "cannot be read"),
        ("kafka+tls://host/t?username=u&password-file=/proc/version&mechanism=x", "one of SCRAM"),
        ("otlp+http://", "HOST:PORT"),
        ("otlp+http://host?ca-file=/dev/null", "ca-file is for otlp"),
        ("otlp+https://host?ca-file=/dev/null", "no file of certificates"),
        ("otlp+https://host?ca-file=/missing", "no file of certificates"),
        ("otlp+http://host?headers-file=/missing", "cannot be read"),
        ("otlp+http://host?headers-file=/proc/version", "not 'Name: value'"),
        ("ipfix+udp://", "export ipfix+udp:: '': write HOST or HOST:PORT"),
        ("ipfix+udp://host,other", "one HOST only"),
        ("ipfix+udp://host:0", "HOST:PORT"),
        ("ipfix+tcp://::1:4739", "HOST:PORT"),
        ("ipfix+tcp://host/path", "nothing may follow the port"),
        ("ipfix+tcp://host?tls=1", "no option 'tls'; there are: none"),
        ("jsonl://[::1", "Invalid IPv6 URL"),
    ],
)
def test_a_url_that_means_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        make_exporter(parse_url(text))


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        parse_url("jsonl://user:hunter2@host/path")
    assert "hunter2" not in str(refused.value)


def test_a_receiver_is_given_once() -> None:
    urls = [parse_url("jsonl:///a?keep=1"), parse_url("jsonl:///a")]
    with pytest.raises(InputError, match="give it once"):
        make_exporters(urls)


def test_a_url_is_named_without_its_options(tmp_path: Path) -> None:
    url = parse_url(f"jsonl://{tmp_path}/flows.jsonl?keep=2")
    assert str(url) == f"jsonl:{tmp_path}/flows.jsonl"
