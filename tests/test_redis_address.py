"""What `REDIS_URL` may say, and what is told of one that cannot be used."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.redis_address import SENTINEL_PORT, RedisAddress, parse_redis_address, redis_passwords

HOSTS = "expected host:port of each Sentinel"
SERVICE = "expected the name under which Sentinel watches the master"


def test_a_single_server_keeps_its_url():
    assert parse_redis_address("rediss://u:p@r.example:6380/1?ssl_ca_certs=/ca.pem") == RedisAddress(
        shown="rediss://***@r.example:6380/1",
        url="rediss://u:p@r.example:6380/1?ssl_ca_certs=/ca.pem",
    )


def test_sentinels_are_told_from_the_service_they_watch():
    assert parse_redis_address(
        "rediss+sentinel://u:p%2F@s1:1,s2,[::1]:3/my.master-1/2?ssl_ca_certs=/ca.pem&sentinel_username=a"
        "&sentinel_password=b%26c"
    ) == RedisAddress(
        shown="rediss+sentinel://***@s1:1,s2,[::1]:3/my.master-1/2",
        url="rediss://u:p%2F@my.master-1/2?ssl_ca_certs=/ca.pem",
        sentinels=(("s1", 1), ("s2", SENTINEL_PORT), ("::1", 3)),
        service="my.master-1",
        sentinel_username="a",
        sentinel_password="b&c",
    )


@pytest.mark.parametrize("path", ["/m", "/m/", "/m/0"])
def test_the_database_is_the_first_one_unless_it_is_named(path):
    found = parse_redis_address(f"redis+sentinel://s1{path}")
    assert (found.url, found.shown) == ("redis://m/0", f"redis+sentinel://s1{path}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one word of visible ASCII"),
        ("redis://h ost", "one word of visible ASCII"),
        ("http://h", "expected a redis://, rediss:// or unix:// URL, or redis+sentinel://"),
        ("redis://[", "expected a redis://, rediss:// or unix:// URL, or redis+sentinel://"),
        ("redis://h:x", "expected a redis://, rediss:// or unix:// URL, or redis+sentinel://"),
        ("redis:///0", "expected a host"),
        ("unix://", "expected the path of a socket"),
        ("redis://h/zero", "expected a database's number after the host"),
        ("redis://h/0/1", "expected a database's number after the host"),
        ("unix+sentinel://h/m", "expected redis+sentinel://host1:26379,host2:26379/mymaster"),
        ("redis+sentinel://h/m#f", "expected redis+sentinel://host1:26379,host2:26379/mymaster"),
        ("redis+sentinel:///m", HOSTS),
        ("redis+sentinel://h1,/m", HOSTS),
        ("redis+sentinel://h1:0/m", HOSTS),
        ("redis+sentinel://h1:65536/m", HOSTS),
        ("redis+sentinel://h1:x/m", HOSTS),
        ("redis+sentinel://user:pa/ss@h1/m", HOSTS),
        ("redis+sentinel://h1", SERVICE),
        ("redis+sentinel://h1/", SERVICE),
        ("redis+sentinel://h1/m/x", SERVICE),
        ("redis+sentinel://h1/m/0/1", SERVICE),
        ("redis://h?ssl_ca_certs=/x", "option ssl_ca_certs is for TLS: expected rediss://"),
        ("redis+sentinel://h/m?ssl_ca_certs=/x", "option ssl_ca_certs is for TLS"),
        (
            "rediss://h?sentinel_password=x",
            "option sentinel_password is for Sentinel: expected rediss+sentinel://",
        ),
        ("rediss://h?ssl_cert_reqs=never", "option ssl_cert_reqs: expected required, optional or none"),
        ("redis://h?db=x", "option db: expected a whole number"),
        ("redis://h?client_name=", "option client_name: expected a name"),
        ("rediss://h?ssl_ca_cert=/x", "did you mean ssl_ca_certs?"),
        ("redis://h?zzz=1", "expected one of username, password, db"),
    ],
)
def test_what_was_expected_is_said(text, message):
    with pytest.raises(ValueError, match=r"expected|mean") as error:
        parse_redis_address(text)
    assert message in str(error.value)


@given(st.text(max_size=60))
@example("redis+sentinel://:hunter2@h1:1/m/0?x=hunter2")
@example("rediss://:hunter2@[v1.x]/0")
def test_any_text_is_read_or_refused_in_a_sentence(text):
    for one in (text, f"redis://{text}", f"redis+sentinel://{text}", f"rediss+sentinel://h/{text}"):
        redis_passwords(one)
        with contextlib.suppress(ValueError):
            found = parse_redis_address(one)
            assert found.url.partition(":")[0].lower() in {"redis", "rediss", "unix"}
            assert bool(found.sentinels) == ("+sentinel" in one.partition(":")[0])


SAFE = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=12).map("zq".__add__)
PLACES = [
    "redis://u:{}@h/0",
    "redis://:{}@h/0",
    "rediss://h/0?password={}",
    "rediss://h/0?ssl_password={}",
    "unix:///s?password={}&db=1",
    "redis+sentinel://u:{}@h1,h2/m",
    "redis+sentinel://h1,h2/m/0?sentinel_password={}",
    "http://u:{}@h/0",
]


@pytest.mark.parametrize("place", PLACES)
@given(password=SAFE)
def test_a_password_is_found_wherever_it_stands_and_shown_nowhere(place, password):
    url = place.format(password)
    assert redis_passwords(url) == (password,)
    try:
        told = repr(parse_redis_address(url)) + parse_redis_address(url).shown
    except ValueError as error:
        told = str(error)
    assert password not in told


def test_passwords_are_found_as_written_and_decoded():
    found = redis_passwords("redis+sentinel://u:a%2Fb@h/m?sentinel_password=c%26d+e&x=y#sentinel_password=z")
    assert found == ("a%2Fb", "a/b", "c%26d+e", "c&d+e", "c&d e")
    assert redis_passwords("redis://h/0?db=1") == ()
