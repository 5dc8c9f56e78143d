"""docker-compose.yml: what it promises, read; and its services' own commands, run against real servers."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import yaml
from composition import OURS, Composition, Unset, load, seconds
from servers import REPOSITORY
from support import DATA, classify, submit, succeeded, upload

from store.settings import StoreSettings

PASSWORD = "a/b@c:d%e"  # of characters that a URL would have to escape
VARIABLES = {"POSTGRES_PASSWORD": PASSWORD, "ANNEAL_ALLOWED_HOSTS": "anneal.example.org"}
TUNED = {"model": "tuned", "aliases": ["production"]}
LONG_RUNNING = ("api", "worker", "ingest-worker")


@pytest.fixture
def composition(postgres_server: str, tmp_path: Path) -> Iterator[Composition]:
    """Every service running, on a database of the name that the file gives."""
    with psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS anneal WITH (FORCE)")
        connection.execute("CREATE DATABASE anneal")
        port = urlsplit(postgres_server).port
        assert port is not None
        running = Composition(tmp_path / "compose", port, VARIABLES)
        try:
            running.up()
            yield running
        finally:
            running.down()
            connection.execute("DROP DATABASE anneal WITH (FORCE)")


@pytest.mark.timeout(400)
def test_the_services_do_the_main_job_and_stop_when_asked(composition: Composition) -> None:
    assert composition.order[-3:] == list(LONG_RUNNING)
    for name in LONG_RUNNING:
        composition.wait(name, "service_healthy")
    _first_key(composition)
    with _client(composition) as api:
        _main_job(api)
        unknown = api.get("/jobs", headers={"Host": "elsewhere.example.org"})
        assert unknown.status_code == 400
        assert api.get("/jobs", headers={"Host": "anneal.example.org"}).status_code == 200
    codes = {name: composition.stop(name) for name in reversed(LONG_RUNNING)}
    assert codes == {"api": 0, "worker": 0, "ingest-worker": 0}, {name: composition.log(name) for name in codes}
    assert [name for name in LONG_RUNNING if composition.is_healthy(name)] == []
    assert composition.stop("redis") == 0


def test_a_password_must_be_given() -> None:
    with pytest.raises(Unset, match=r"set POSTGRES_PASSWORD in \.env"):
        load({})
    example = (REPOSITORY / ".env.example").read_text()
    assert "\nPOSTGRES_PASSWORD=\n" in example, "the example must not hold a password that somebody could keep"


def test_every_variable_is_in_the_example() -> None:
    source = (REPOSITORY / "docker-compose.yml").read_text()
    example = (REPOSITORY / ".env.example").read_text()
    names = {part.partition("}")[0].partition(":")[0] for part in source.split("${")[1:]}
    assert {name for name in names if f"{name}=" not in example} == set()


def test_our_services_share_one_image_volume_and_database() -> None:
    services = load(VARIABLES)["services"]
    for name in OURS:
        service = services[name]
        assert service["image"] == services["api"]["image"]
        assert service["volumes"] == ["data:/data"]
        assert service["environment"]["ANNEAL_DATABASE_URL"] == services["api"]["environment"]["ANNEAL_DATABASE_URL"]
        assert service["environment"]["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "privileged" not in service


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    services = load(VARIABLES)["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api": ["127.0.0.1:8000:8000"]
    }


def test_a_worker_has_longer_to_stop_than_its_training_has() -> None:
    services = load(VARIABLES)["services"]
    grace = StoreSettings.model_fields["stop_grace_s"].default
    for name in ("worker", "ingest-worker", "gpu-worker"):
        assert seconds(services[name]["stop_grace_period"]) >= grace + 20


def test_redis_keeps_its_messages() -> None:
    command = " ".join(load(VARIABLES)["services"]["redis"]["command"])
    for promise in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert promise in command


def test_everything_that_stays_restarts_and_is_checked() -> None:
    document = load(VARIABLES)
    for name, service in document["services"].items():
        assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")
        assert ("test" in service["healthcheck"]) == (name != "migrate")
    used = {volume.partition(":")[0] for service in document["services"].values() for volume in service["volumes"]}
    assert used == set(document["volumes"])


def test_the_gpu_worker_is_asked_for_and_differs_by_its_build_and_device_only() -> None:
    services = load(VARIABLES)["services"]
    gpu, worker = services["gpu-worker"], services["worker"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["command"] == worker["command"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "/cpu" not in gpu["build"]["args"]["TORCH_INDEX_URL"]
    differing = {name for name in gpu if gpu[name] != worker.get(name)}
    assert differing == {"profiles", "image", "build", "shm_size", "deploy"}


def test_the_file_is_yaml_without_repeated_names() -> None:
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        names = [key.value for key, _ in node.value]
        assert len(names) == len(set(names)), names
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load((REPOSITORY / "docker-compose.yml").read_text(), Strict)


def _client(composition: Composition) -> httpx.Client:
    key = (composition.data_dir / "api_key").read_text().strip()
    return httpx.Client(
        base_url=f"http://127.0.0.1:{composition.api_port}/api/v1",
        timeout=90,
        headers={"Authorization": f"Bearer {key}"},
    )


def _main_job(api: httpx.Client) -> None:
    unlabelled = upload(api, DATA / "breast_cancer_unlabeled.csv")
    few = upload(api, DATA / "breast_cancer_few10.csv")
    base = {
        "kind": "pretrain",
        "task": "masked-features",
        "dataset": unlabelled["id"],
        "hyperparameters": {"epochs": 2},
        "output": {"model": "base"},
    }
    succeeded(api, submit(api, base))
    succeeded(api, submit(api, classify(few["id"], base_model="base", output=TUNED)))
    header, first = (DATA / "breast_cancer_test.csv").read_text().splitlines()[:2]
    row = dict(zip(header.split(","), first.split(","), strict=True))
    del row["diagnosis"]
    inputs = [{name: float(value) for name, value in row.items()}]
    answer = api.post("/models/tuned@production/predict", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["label"] in ("benign", "malignant")


def _first_key(composition: Composition) -> None:
    kept = composition.data_dir / "api_key"
    key = kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(composition.data_dir.stat().st_mode) == 0o700
    assert "api_key" in composition.log("migrate")
    assert key.strip().partition(".")[2] not in composition.log("migrate")
    composition.order.remove("migrate")
    composition.start("migrate")
    composition.wait("migrate", "service_completed_successfully")
    assert "There is a key already" in composition.log("migrate")
    assert kept.read_text() == key
