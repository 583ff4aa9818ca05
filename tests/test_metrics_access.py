"""Who may scrape: this machine, and whoever bears a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import metrics_access
from service.metrics_access import may_scrape

TOKEN = "metrics-token-of-16+"
ADMIN = "admin-token-of-16-or-more"
HERE = {"host": "127.0.0.1:8080"}


def allowed(client="127.0.0.1", headers=HERE, *, metrics=None, admin=None):
    return may_scrape(client_host=client, headers=headers, metrics_token=metrics, admin_token=admin)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080"])
def test_this_machine_needs_no_token(client, host):
    assert allowed(client, {"host": host})
    assert allowed(client, {"host": host}, admin=ADMIN)


def test_this_machine_needs_the_token_once_there_is_one():
    assert not allowed(metrics=TOKEN)
    assert allowed(headers={**HERE, "authorization": f"Bearer {TOKEN}"}, metrics=TOKEN)


@pytest.mark.parametrize(
    "client", [None, "", "10.0.0.7", "::ffff:10.0.0.7", "2001:db8::1", "somebody", "127.0.0.1x"]
)
def test_others_need_a_token(client):
    assert not allowed(client)
    assert not allowed(client, metrics=TOKEN, admin=ADMIN)


@pytest.mark.parametrize("host", ["", "enrich.example.com", "127.0.0.1.example.com", "[::1", "10.0.0.7", "["])
def test_a_name_from_elsewhere_is_not_this_machine(host):
    assert not allowed("127.0.0.1", {"host": host})


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(name):
    assert not allowed(headers={**HERE, name: "127.0.0.1"})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize("token", [TOKEN, ADMIN])
def test_either_token_opens(scheme, token):
    headers = {"authorization": f"{scheme} {token}"}
    assert allowed("10.0.0.7", headers, metrics=TOKEN, admin=ADMIN)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer é",
    ],
)
def test_anything_else_does_not_open(authorization):
    headers = {"authorization": authorization}
    assert not allowed("10.0.0.7", headers, metrics=TOKEN, admin=ADMIN)
    assert not allowed("10.0.0.7", headers)


def test_an_empty_token_opens_nothing():
    assert not allowed("10.0.0.7", {"authorization": "Bearer "}, metrics="", admin="")


@given(st.text(), st.text(), st.text())
def test_without_a_token_nothing_gets_in_from_elsewhere(client, host, authorization):
    headers = {"host": host, "authorization": authorization}
    assert not allowed("10.0.0.7", headers, metrics=TOKEN)
    assert not allowed(client, headers, metrics=TOKEN)


def test_tokens_are_compared_in_constant_time_and_all_of_them(monkeypatch):
    compared = []

    def compare(given, wanted):
        compared.append(wanted)
        return given == wanted

    monkeypatch.setattr(metrics_access.hmac, "compare_digest", compare)
    assert allowed("10.0.0.7", {"authorization": f"Bearer {TOKEN}"}, metrics=TOKEN, admin=ADMIN)
    assert compared == [TOKEN.encode(), ADMIN.encode()]
