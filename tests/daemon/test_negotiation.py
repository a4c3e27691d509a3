"""Which requests are answered and how, by two headers that anybody writes: Accept and Host."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyperbox.daemon.application import meant_here
from hyperbox.daemon.negotiation import FALLBACK, OPENMETRICS, TEXT, Format, negotiated
from tests.mutation import batches

OPEN = Format(OPENMETRICS, "1.0.0", "underscores")
TEXT_1 = Format(TEXT, "1.0.0", "underscores")
UTF8 = Format(OPENMETRICS, "1.0.0", "allow-utf-8")

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", FALLBACK),
        ("*/*", FALLBACK),
        ("text/*", FALLBACK),
        ("text/html,application/xhtml+xml,*/*;q=0.8", FALLBACK),
        ("application/json", FALLBACK),
        (PROMETHEUS_3, UTF8),
        (PROMETHEUS_2, OPEN),
        (PROTOBUF_FIRST, FALLBACK),
        (OPENMETRICS, OPEN),
        (OPENMETRICS.upper(), OPEN),
        (f'{OPENMETRICS}; VERSION="1.0.0"', OPEN),
        (f'{OPENMETRICS}; version="1\\.0.0"', OPEN),
        (f'{OPENMETRICS};x="a,b;version=2";version=1.0.0', OPEN),
        (f"{OPENMETRICS};version=1.0.0;escaping=evil", OPEN),
        (f"{OPENMETRICS};version=1.0.0;version=7", OPEN),
        # What there is no such version of is not echoed: the next one is taken.
        (f"{OPENMETRICS};version=x", FALLBACK),
        (f"{OPENMETRICS};version=0.0.1", FALLBACK),
        (f"{OPENMETRICS};version=99.0.0", FALLBACK),
        (f"{OPENMETRICS};version=99.0.0,text/plain;version=1.0.0;q=0.1", TEXT_1),
        ("text/plain; version=latest", FALLBACK),
        ("text/plain;version=1.0.0", TEXT_1),
        # Weights decide, and of equal ones the place.
        (f"{OPENMETRICS};q=0.1,text/plain;q=0.2", FALLBACK),
        (f"text/plain;version=1.0.0,{OPENMETRICS}", TEXT_1),
        (f"{OPENMETRICS};q=0", FALLBACK),
        (f"{OPENMETRICS};q=0.000,text/plain;version=1.0.0;q=0.001", TEXT_1),
        # Weights that RFC 9110 does not have count as none.
        (f"{OPENMETRICS};q=nan", FALLBACK),
        (f"{OPENMETRICS};q=1e999", FALLBACK),
        (f"{OPENMETRICS};q=2", FALLBACK),
        (f"{OPENMETRICS};q=-1", FALLBACK),
        (f"{OPENMETRICS};q=", FALLBACK),
    ],
)
def test_the_supported_format_with_the_highest_weight_is_chosen(
    accept: str, chosen: Format
) -> None:
    assert negotiated(accept) == chosen


PARTS = st.sampled_from(
    [
        *(OPENMETRICS, TEXT, "*/*", "text/*", "version", "escaping", "q", "1.0.0", "0.0.4", "0.5"),
        *("=", ";", ",", '"', "\\", " ", "\t", "allow-utf-8", "dots", "1", "\u0663", "\x00"),
    ]
)
ANY = st.one_of(st.text(), st.lists(PARTS).map("".join))


@settings(max_examples=500, deadline=None)
@given(accept=ANY)
@example(accept='text/plain;version="1.0.0')
@example(accept=f"{OPENMETRICS};q=\u0663")
@example(accept=",;=" * 5000)
@example(accept='"' * 16_000)
@example(accept='"\\' * 8000)
def test_whatever_accept_says_one_of_a_few_formats_comes(accept: str) -> None:
    check_accept(accept)


@settings(max_examples=200, deadline=None)  # of 50 inputs each
@given(accepts=batches([PROMETHEUS_3, PROMETHEUS_2, PROTOBUF_FIRST]))
def test_damaged_accept_headers_too(accepts: list[str]) -> None:
    for accept in accepts:
        check_accept(accept)


def check_accept(accept: str) -> None:
    chosen = negotiated(accept)
    escapings = ("allow-utf-8", "underscores", "dots", "values")
    assert chosen in [
        FALLBACK,
        *(Format(media, "1.0.0", way) for media in (TEXT, OPENMETRICS) for way in escapings),
    ]


LOOPBACK = ("127.0.0.1", 9797)


@pytest.mark.parametrize("local", [LOOPBACK, ("::1", 9797), ("::ffff:127.0.0.1", 9797)])
@pytest.mark.parametrize(
    "host",
    [
        *("", "localhost", "LOCALHOST:9797", "localhost.", "Localhost.:80", "127.0.0.1"),
        *("127.8.9.1:1", "[::1]:9797", "[::1]", "[::ffff:127.0.0.1]:9797"),
    ],
)
def test_names_of_this_machine(local: tuple[str, int], host: str) -> None:
    assert meant_here(local, host)


@pytest.mark.parametrize("local", [LOOPBACK, ("::1", 9797), ("::ffff:127.0.0.1", 9797)])
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9797", "localhost.evil.example", "evil-localhost"),
        *("127.0.0.1.evil.example", "a@localhost", "localhost:80@evil.example", "localhost.."),
        *("localhost evil", "localhost\n", "0.0.0.0", "10.0.0.1", "::1", "[::]", "[]", "[::1"),
        *("[evil.example]", "[localhost]", "[::1]evil.example", "[::1]:80:80"),
        "[::ffff:10.0.0.1]",
    ],
)
def test_names_of_others_are_refused_on_loopback_addresses(
    local: tuple[str, int], host: str
) -> None:
    assert not meant_here(local, host)


@pytest.mark.parametrize("local", [("/run/hyperbox.sock", None), ("10.0.0.1", 80), ("fe80::1", 80)])
def test_other_addresses_have_names_that_only_others_know(local: tuple[str, int | None]) -> None:
    assert meant_here(local, "box.example")


LABELS = st.sampled_from(["localhost", "127.0.0.1", "::1", "::", "evil.example", "0", "1", "ffff"])
HOSTS = st.one_of(st.text(), st.lists(LABELS | st.sampled_from(list("[]:.%@/ \t"))).map("".join))


@settings(max_examples=500, deadline=None)
@given(host=HOSTS)
@example(host="[")
@example(host="[::1%lo]")
@example(host="[" * 8000)
@example(host="localho\u017ft")  # case folding would make the long s an s
def test_whatever_host_says_only_names_of_this_machine_are_taken(host: str) -> None:
    check_host(host)


@settings(max_examples=200, deadline=None)  # of 50 inputs each
@given(hosts=batches(["localhost:9797", "127.0.0.1:80", "[::ffff:127.0.0.1]:9797", "evil.example"]))
def test_damaged_host_headers_too(hosts: list[str]) -> None:
    for host in hosts:
        check_host(host)


def check_host(host: str) -> None:
    if meant_here(LOOPBACK, host):
        name = host.strip("[]:0123456789.%abcdefABCDEF").lower()
        assert name in ("", "localhost", "lo")
