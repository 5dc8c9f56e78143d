"""Processes that serve a part: predictions on their own, everything else on its own, over one store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import httpx
import pytest
import yaml
from registered import INPUT, register, register_text
from servers import REPOSITORY, Stack

from service.app import create_app
from service.settings import Role, ServiceSettings

PAGE = REPOSITORY / "docs" / "scaling.md"


SHARED = {"/livez", "/readyz", "/metrics"}


@cache
def paths(role: Role) -> set[str]:
    return set(create_app(ServiceSettings(role=role)).openapi()["paths"])


def test_the_two_roles_share_health_and_nothing_else() -> None:
    assert paths("api") & paths("predict") == SHARED
    assert paths("api") | paths("predict") == paths("all")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_proxy_s_pattern_is_the_role_s() -> None:
    (pattern,) = re.findall(r"location ~ (\S+) \{", block("nginx"))
    route = re.compile(pattern)
    shown = {path: re.sub(r"\{[^}]+\}", "a:1", path) for path in paths("all") - SHARED}
    assert {path for path, sample in shown.items() if route.match(sample)} == paths("predict") - SHARED


def test_the_composition_gives_each_its_role() -> None:
    class Loader(yaml.SafeLoader):
        """Knows Compose's own tags."""

    Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
    services = yaml.load(block("yaml"), Loader)["services"]
    whole = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["api"]
    trusting = {"ANNEAL_TRUSTED_PROXIES": "*"}
    assert services["api"]["environment"] == {"ANNEAL_ROLE": "api", **trusting}
    ours = services["predict"]
    same = ("image", "init", "restart", "cap_drop", "security_opt", "volumes", "command")
    assert {name: ours[name] for name in same} == {name: whole[name] for name in same}
    changed = {"ANNEAL_ROLE": "predict", "ANNEAL_ALLOWED_HOSTS": ours["environment"]["ANNEAL_ALLOWED_HOSTS"]}
    assert ours["environment"] == {**whole["environment"], **trusting, **changed}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Stack]]:
    """An API and a predictor on one data directory."""
    directory = tmp_path_factory.mktemp("roles")
    api, predictor = (Stack(directory, {"ANNEAL_ROLE": role}) for role in ("api", "predict"))
    try:
        api.up(workers=False)
        predictor.start("api", "service")
        predictor.wait_ready()
        yield api, predictor
    finally:
        predictor.down()
        api.down()


def test_each_answers_its_part_and_sees_what_the_other_does(pair: tuple[Stack, Stack]) -> None:
    api, predictor = pair
    register(api, "small", aliases=("production",))
    register(api, "small")
    register_text(api, "said")
    with api.client() as managing, predictor.client() as predicting:
        body = {"inputs": [INPUT]}
        for number in (1, 2, 1):
            moved = managing.put("/models/small/aliases/production", json={"version": number})
            assert moved.status_code == 200
            answer = predicting.post("/models/small@production/predict", json=body)
            assert answer.json()["model"]["version"] == number
        texts = predicting.post("/models/said/predict", content=b"a text", headers={"Content-Type": "text/plain"})
        assert texts.status_code == 200
        assert predicting.get("/models:loaded").json()["data"]
        for client, path in ((managing, "/models/small/predict"), (predicting, "/jobs"), (predicting, "/datasets")):
            assert client.post(path, json=body).status_code == 404
        assert httpx.get(f"{predictor.url}/v2/health/ready").status_code == 200
        assert predicting.get("/models/small").status_code == 404
        later = predicting.post("/models/small/predict", json=body, headers={"Prefer": "respond-async"})
        assert later.status_code == 202
        assert managing.get(later.headers["Location"].removeprefix("/api/v1")).json()["status"] == "queued"
