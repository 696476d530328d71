"""What a server does with a model's signature, and what it says of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rorqual.config.server import ServerConfig
from rorqual.errors import CheckpointError
from rorqual.platform import Platform
from rorqual.release import PrivateKey, fresh_key, pinned_keys, public_half, sign_here, sign_model
from rorqual.server import Services, create_app, open_models
from tests.server.scripted import make_tokenizer
from tests.server.served import save_tiny_model


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "tiny"
    save_tiny_model(make_tokenizer(), path)
    return path


@pytest.fixture
def unsigned(network: Path) -> Iterator[Path]:
    yield network
    (network / "model.sig").unlink(missing_ok=True)


def config(model: Path, folder: Path, **more: Any) -> ServerConfig:
    database = {"url": f"sqlite:///{folder / 'server.db'}"}
    models = [{"name": "tiny", "path": str(model)}]
    return ServerConfig.model_validate({"database": database, "models": models, **more})


def asked(settings: ServerConfig, path: str) -> Any:
    """What a server with these settings answers; its engine is not started."""
    services = Services(settings, Platform.open(settings), open_models(settings))

    async def ask() -> Any:
        transport = httpx.ASGITransport(create_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get(path)).raise_for_status().json()

    services.platform.start()
    try:
        return asyncio.run(ask())
    finally:
        services.platform.close()
        services.threads.shutdown()


def test_a_platform_serves_only_what_somebody_it_knows_has_signed(
    unsigned: Path, tmp_path: Path
) -> None:
    key = fresh_key()
    (tmp_path / "ours.pem").write_text(public_half(key, "ours").pem)
    trusting = {"mode": "platform", "trusted_keys": [str(tmp_path / "ours.pem")]}
    with pytest.raises(CheckpointError, match=r"tiny: unsigned.*--allow-unsigned"):
        open_models(config(unsigned, tmp_path, mode="platform"))
    sign_model(unsigned, key)
    with pytest.raises(CheckpointError, match="tiny: signed by an unknown key"):
        open_models(config(unsigned, tmp_path, mode="platform"))
    (backend,) = open_models(config(unsigned, tmp_path, **trusting))
    assert backend.info.trust.label == "signed by ours"
    (unsigned / "chat_template.jinja").touch()
    try:
        with pytest.raises(CheckpointError, match=r"chat_template\.jinja was added"):
            open_models(config(unsigned, tmp_path, **trusting))
        open_models(config(unsigned, tmp_path, **trusting, unsigned_models="served"))
    finally:
        (unsigned / "chat_template.jinja").unlink()


def test_a_platform_serves_what_was_trained_on_its_machine(unsigned: Path, tmp_path: Path) -> None:
    sign_here(unsigned, "tiny")
    (backend,) = open_models(config(unsigned, tmp_path, mode="platform"))
    assert backend.info.trust.label == "trained on this machine"


def signed_with(model: Path, key: PrivateKey | None) -> None:
    if key is not None:
        sign_model(model, key)


@pytest.mark.parametrize(
    ("key", "label"), [(None, "unsigned"), (fresh_key(), "signed by an unknown key")]
)
def test_locally_everything_is_served_under_its_label(
    key: PrivateKey | None, label: str, unsigned: Path, tmp_path: Path
) -> None:
    signed_with(unsigned, key)
    settings = config(unsigned, tmp_path)
    for path, models in (("/v1/models", "data"), ("/api/models", "models")):
        model = asked(settings, path)[models][0]  # the app also lists what can be fetched
        assert model["signature"]["label"] == label and model["signature"]["digest"] is None


def test_release_json_says_whose_signature_was_checked(unsigned: Path, tmp_path: Path) -> None:
    key = fresh_key()
    (tmp_path / "ours.pem").write_text(public_half(key, "ours").pem)
    manifest = sign_model(unsigned, key)
    settings = config(unsigned, tmp_path, trusted_keys=[str(tmp_path / "ours.pem")])
    said = asked(settings, "/.well-known/release.json")
    (model,) = said["models"]
    assert model["id"] == "tiny"
    assert model["signature"]["digest"] == manifest.digest
    assert model["signature"]["fingerprint"] == public_half(key, "ours").fingerprint
    assert {one["fingerprint"] for one in said["keys"]} == set(pinned_keys().keys)


def test_an_upstreams_model_is_elsewhere(tmp_path: Path) -> None:
    upstream = [{"name": "far", "upstream": "http://127.0.0.1:9/v1"}]
    settings = ServerConfig.model_validate({"mode": "platform", "models": upstream})
    (backend,) = open_models(settings)
    assert backend.info.trust.state == "elsewhere" and not backend.info.trust.holds
