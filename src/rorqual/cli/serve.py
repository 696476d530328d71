"""`rorqual serve`: the API and the web app over one model or several, on this machine at first."""

import asyncio
import io
from pathlib import Path
from typing import Annotated

import segno
import typer
from pydantic import ValidationError
from uvicorn.loops.auto import auto_loop_factory

from rorqual.checkpoint.models import PACKAGED, packaged_cache, packaged_file
from rorqual.cli.options import find_model, say
from rorqual.config.model import first_error
from rorqual.config.sections import read_config_file
from rorqual.config.server import AdmissionConfig, ServerConfig
from rorqual.errors import ConfigError
from rorqual.platform import Platform
from rorqual.server import (
    Pairing,
    Services,
    certificate,
    create_admin_app,
    create_app,
    network_address,
    open_models,
)
from rorqual.server.serving import check_bind, run_server

_LOCAL_ADMISSION = AdmissionConfig.model_validate(
    {
        "max_running": 64,
        "max_running_per_account": 64,
        "max_queued": 4096,
        "max_queued_tokens": 10**9,
        "max_per_account": 4096,
        "max_wait_seconds": 86_400.0,
        "deadline_seconds": 86_400.0,
        "account_tokens_per_second": 1e9,
        "account_burst_tokens": 10**9,
        "address_tokens_per_second": 1e9,
        "address_burst_tokens": 10**9,
    }
)


def serve(
    model: Annotated[
        str | None, typer.Argument(help="A model directory, a .gguf file, or a known name.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port; 8000 if left out.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file: mode, models, limits, prices.")
    ] = None,
    allow_unsigned: Annotated[
        bool,
        typer.Option(
            "--allow-unsigned",
            help="In platform mode: also serve models whose signature is absent or wrong.",
        ),
    ] = False,
    phone: Annotated[
        bool, typer.Option("--phone", help="For a phone in this network: TLS and a QR code.")
    ] = False,
) -> None:
    """Serve a model: OpenAI's, DeepSeek's and Anthropic's APIs, and the app.

    Without a file it is for this machine alone: one user, no keys, no set-up.
    """
    settings, fingerprint = _settings(model, port, config), ""
    if allow_unsigned:
        settings = settings.model_copy(update={"unsigned_models": "served"})
    if phone:
        settings, fingerprint = _for_phone(settings)
    check_bind(settings)
    models = open_models(settings)
    services = Services(settings, Platform.open(settings), models)
    services.platform.sweeper.sweep()
    http = settings.http
    scheme = "http" if http.tls_certificate is None else "https"
    say(
        f"{', '.join(backend.info.name for backend in models)} on {scheme}://{http.host}:"
        f"{http.port} ({settings.mode} mode); the model is being loaded, Ctrl-C stops"
    )
    for backend in models:
        say(f"{backend.info.name}: {backend.info.trust.label}")
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop where it is
        pairing = Pairing(services) if phone else None
        if pairing is not None:
            _invite(f"{scheme}://{http.host}:{http.port}", pairing, fingerprint)
        app = create_app(services, pairing)
        runner.run(run_server(services, app, create_admin_app(services)))


def _for_phone(settings: ServerConfig) -> tuple[ServerConfig, str]:
    """The settings for this machine's network, one user still, and the certificate's fingerprint.

    Platform mode, because it asks who is there; nobody can register, and nothing has a price.
    """
    if settings.mode != "local":
        raise ConfigError("--phone is for local mode; a platform has accounts, so leave it out")
    address = network_address()
    url = settings.database.url.removeprefix("sqlite:///")
    cert, key, fingerprint = certificate(Path(url).parent / "phone", address)
    http = {"host": address, "tls_certificate": str(cert), "tls_key": str(key)}
    return settings.model_copy(
        update={
            "mode": "platform",
            "http": settings.http.model_copy(update=http),
            "metering": settings.metering.model_copy(update={"unpriced": "free"}),
            "unsigned_models": "served",
        }
    ), fingerprint


def _code(text: str) -> str:
    """A QR code for a terminal, dark on white whatever its colours."""
    drawn = io.StringIO()
    segno.make_qr(text).terminal(drawn, compact=True)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines())


def _invite(base: str, pairing: Pairing, fingerprint: str) -> None:
    """Two links, each for one device: as a code for the phone, as text for this machine."""
    link = base + pairing.path()
    print(_code(link))
    say(
        f"scan it with the phone's camera, or open {link} there: it works once, for ten minutes\n"
        f"on this machine: {base}{pairing.path()}\n"
        "the certificate is this machine's own, so the browser warns once; go on only if it shows\n"
        f"SHA-256 {fingerprint}"
    )


def load_server_config(path: Path | None) -> ServerConfig:
    """The file's configuration, or the defaults: local mode, loopback."""
    return _checked({} if path is None else read_config_file(path), path)


def _settings(model: str | None, port: int | None, path: Path | None) -> ServerConfig:
    raw = {} if path is None else read_config_file(path)
    if port is not None:
        raw.setdefault("http", {})["port"] = port
    if model is not None:
        raw["models"] = [_named(model, find_model(model)), *raw.get("models", [])]
    if not raw.get("models"):
        raise ConfigError("no model to serve; name one, as in `rorqual serve MODEL`, or [[models]]")
    return _checked(raw, path)


def _named(model: str, where: Path) -> dict[str, str]:
    """A [[models]] entry for what the command line names, under the name that requests use."""
    packaged = PACKAGED.get(model)
    if packaged is not None and where == packaged_file(model, packaged, packaged_cache()):
        return {"name": model, "title": packaged.title, "path": str(where)}
    given = Path(model)  # a run's folder has the better name than its newest checkpoint
    folder = given if given.is_dir() else where
    name = where.stem if where.is_file() else folder.resolve().name
    return {"name": name, "path": str(where)}


def _checked(raw: dict[str, object], path: Path | None) -> ServerConfig:
    try:
        config = ServerConfig.model_validate(raw)
        if config.mode == "local" and "admission" not in raw:
            # One user shares with nobody: a long queue is theirs to make.
            config = config.model_copy(update={"admission": _LOCAL_ADMISSION})
        return config
    except ValidationError as error:
        raise ConfigError(f"{path or 'rorqual serve'}: {first_error(error)}") from error
