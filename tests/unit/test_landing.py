from __future__ import annotations

import pytest

from web.routes.landing import landing_path, server_url

URL = "http://hub.example/user/a-b/"


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({}, ""),
        ({"urlpath": "lab/tree/a.ipynb"}, "lab/tree/a.ipynb"),
        ({"urlpath": "/lab"}, "lab"),
        ({"urlpath": "lab/tree/a%20b.ipynb?reset#end"}, "lab/tree/a%20b.ipynb?reset#end"),
        ({"labpath": "a b/c.ipynb"}, "doc/tree/a%20b/c.ipynb"),
        ({"labpath": "folder/"}, "doc/tree/folder"),
        ({"filepath": "50%.ipynb"}, "tree/50%25.ipynb"),
        ({"filepath": "ünï.ipynb"}, "tree/%C3%BCn%C3%AF.ipynb"),
        ({"labpath": "a", "filepath": "b", "urlpath": "c"}, "doc/tree/a"),
        ({"filepath": "b", "urlpath": "c"}, "tree/b"),
    ],
)
def test_links_land_where_binderhubs_do(query: dict[str, str], path: str) -> None:
    assert landing_path(query) == path


@pytest.mark.parametrize(
    "urlpath",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "../../hub/token",
        "%2e%2e/%2E./x",
        "javascript:alert(1)",
        "a\r\nSet-Cookie: x",
        '"><script>',
        "@evil.example",
    ],
)
def test_no_link_leads_the_token_out_of_the_server(urlpath: str) -> None:
    path = landing_path({"urlpath": urlpath})
    target = server_url(URL, path, "t")
    assert target.startswith(URL)
    assert not set(target) & set(' \\"<>\r\n')
    assert not {"..", "%2e%2e", "%2E."} & set(target.partition("?")[0].split("/"))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", f"{URL}?token=t"),
        ("lab", f"{URL}lab?token=t"),
        ("lab?reset", f"{URL}lab?reset=&token=t"),
        ("lab?a=b%26c#end", f"{URL}lab?a=b%26c&token=t#end"),
    ],
)
def test_the_token_joins_what_is_asked_already(path: str, target: str) -> None:
    assert server_url(URL, path, "t") == target
