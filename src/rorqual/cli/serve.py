"""`rorqual serve`: the API and the web app over one model or several, on this machine at first."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from uvicorn.loops.auto import auto_loop_factory

from rorqual.cli.options import find_model, say
from rorqual.config.model import first_error
from rorqual.config.sections import read_config_file
from rorqual.config.server import AdmissionConfig, ServerConfig
from rorqual.errors import ConfigError
from rorqual.platform import Platform
from rorqual.server import Services, create_admin_app, create_app, open_models
from rorqual.server.serving import check_bind, run_server

_LOCAL_ADMISSION = AdmissionConfig.model_validate(
    {
        "max_running": 64,
        "max_running_per_account": 64,
        "max_queued": 4096,
        "max_queued_tokens": 10**9,
        "max_per_account": 4096,
        "max_wait_seconds": 86_400.0,
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
) -> None:
    """Serve a model: OpenAI's, DeepSeek's and Anthropic's APIs, and the app.

    Without a file it is for this machine alone: one user, no keys, no set-up.
    """
    settings = _settings(model, port, config)
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
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop where it is
        runner.run(run_server(services, create_app(services), create_admin_app(services)))


def load_server_config(path: Path | None) -> ServerConfig:
    """The file's configuration, or the defaults: local mode, loopback."""
    return _checked({} if path is None else read_config_file(path), path)


def _settings(model: str | None, port: int | None, path: Path | None) -> ServerConfig:
    raw = {} if path is None else read_config_file(path)
    if port is not None:
        raw.setdefault("http", {})["port"] = port
    if model is not None:
        where = find_model(model)
        given = Path(model)  # a run's folder has the better name than its newest checkpoint
        served = {
            "name": where.stem
            if where.is_file()
            else (given if given.is_dir() else where).resolve().name
        }
        raw["models"] = [served | {"path": str(where)}, *raw.get("models", [])]
    if not raw.get("models"):
        raise ConfigError("no model to serve; name one, as in `rorqual serve MODEL`, or [[models]]")
    return _checked(raw, path)


def _checked(raw: dict[str, object], path: Path | None) -> ServerConfig:
    try:
        config = ServerConfig.model_validate(raw)
        if config.mode == "local" and "admission" not in raw:
            # One user shares with nobody: a long queue is theirs to make.
            config = config.model_copy(update={"admission": _LOCAL_ADMISSION})
        return config
    except ValidationError as error:
        raise ConfigError(f"{path or 'rorqual serve'}: {first_error(error)}") from error
