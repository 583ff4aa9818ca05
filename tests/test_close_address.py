"""Where Close's API is, and which proxy stands on the way."""

import pytest

from workers.close_address import api_root, environment_proxy

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("https://api.close.com/api/v1", "https://api.close.com/api/v1"),
        ("https://api.close.com/api/v1/", "https://api.close.com/api/v1"),
        ("https://api.close.com", "https://api.close.com/api/v1"),
        (" https://api.close.com/ ", "https://api.close.com/api/v1"),
        ("HTTP://127.0.0.1:8001", "http://127.0.0.1:8001/api/v1"),
        ("http://[::1]:8001/close/", "http://[::1]:8001/close/api/v1"),
        ("http://gateway/close/api/v1/", "http://gateway/close/api/v1"),
    ],
)
def test_the_path_is_completed(base_url, root):
    assert api_root(base_url) == root


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.close.com",
        "ftp://api.close.com",
        "https://",
        "https:///api/v1",
        "http://[::1",
        "http://a:99999",
        "http://a:0",
        "http://exa mple.com",
    ],
)
def test_what_is_no_http_address_is_refused(base_url):
    with pytest.raises(
        ValueError, match=r"base_url must be an address like https://api\.close\.com/api/v1: http"
    ):
        api_root(base_url)


@pytest.mark.parametrize("extra", ["https://s3cret@host", "https://host/?s3cret=1", "https://host/#s3cret"])
def test_an_address_with_more_than_a_host_and_a_path_is_refused_and_not_shown(extra):
    with pytest.raises(ValueError, match="without a user") as caught:
        api_root(extra)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "root", "proxy"),
    [
        ({}, "https://api.close.com/api/v1", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.close.com/api/v1", "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "https://api.close.com/api/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "https://api.close.com/api/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://gateway/api/v1", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:1"}, "https://api.close.com/api/v1", "http://proxy:1"),
        ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "*"}, "https://api.close.com/api/v1", None),
        ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "close.com"}, "https://api.close.com/api/v1", None),
        ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8001/api/v1", None),
    ],
)
def test_the_environment_names_the_proxy(monkeypatch, environment, root, proxy):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(root) == proxy
