"""tokenizer.json and tokenizer_config.json: read, checked, written.

The files are kept as they were read, so that saving a published tokenizer gives back the same
`tokenizer.json` byte for byte. Only byte-level BPE is accepted (DeepSeek, Qwen, Llama 3): every
promise of this package (lossless, bytes per token, no injection) rests on it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rorqual.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer on disk: the model's JSON text, the parsed settings, and where they came from."""

    tokenizer_json: str
    config: dict[str, Any]
    source: str

    @property
    def chat_template(self) -> str | None:
        """The chat template; of several named ones, the one called `default`."""
        template = self.config.get("chat_template")
        if isinstance(template, list):
            named = cast("list[dict[str, str]]", template)
            return next((t["template"] for t in named if t["name"] == "default"), None)
        return cast("str | None", template)

    def token_string(self, name: str) -> str | None:
        """The string of `bos_token`, `eos_token` or `pad_token`, None if the settings name none."""
        value = self.config.get(name)
        if isinstance(value, dict):
            return cast("dict[str, str]", value).get("content")
        return cast("str | None", value)


def read_files(path: Path) -> TokenizerFiles:
    """A model directory or a tokenizer.json, with the settings that lie beside it, if any."""
    json_path = path / TOKENIZER_FILE if path.is_dir() else path
    config_path = json_path.parent / CONFIG_FILE
    if path.is_dir() and not config_path.is_file():
        raise CheckpointError(
            f"{config_path} is missing; a model directory needs {TOKENIZER_FILE} and "
            f"{CONFIG_FILE}, copy it there or give the path of {TOKENIZER_FILE} itself"
        )
    tokenizer_json = _read(json_path)
    config = parse_object(_read(config_path), config_path) if config_path.is_file() else {}
    template_path = json_path.parent / TEMPLATE_FILE
    if template_path.is_file():
        config["chat_template"] = _read(template_path)
    return TokenizerFiles(tokenizer_json, config, str(json_path))


def write_files(files: TokenizerFiles, directory: Path) -> None:
    """Write both files into `directory`, made if missing; the template goes inside the settings."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER_FILE).write_text(files.tokenizer_json, encoding="utf-8", newline="")
        text = json.dumps(files.config, ensure_ascii=False, indent=2, sort_keys=True)
        (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8", newline="")
    except OSError as error:
        raise CheckpointError(
            f"cannot save the tokenizer in {directory}: {error.strerror}; free the disk or choose "
            "a directory that can be written"
        ) from error


def parse_object(text: str, source: str | Path) -> dict[str, Any]:
    """A JSON object, or a CheckpointError that names the file and what is wrong with it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{source} is not JSON ({error.msg} at line {error.lineno}); the file is truncated or "
            "corrupt, fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{source} holds a JSON {type(value).__name__}; expected an object, fetch it again"
        )
    return cast("dict[str, Any]", value)


def added_tokens(parsed: Mapping[str, Any], source: str) -> list[tuple[str, int, bool]]:
    """(string, id, flagged special) of every added token in a parsed tokenizer.json."""
    tokens = cast("list[dict[str, Any]]", parsed.get("added_tokens") or [])
    try:
        return [(token["content"], token["id"], token["special"]) for token in tokens]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source}: an entry of added_tokens lacks {error}; expected content, id and special, "
            "fetch the file again"
        ) from error


def require_byte_level(parsed: Mapping[str, Any], source: str) -> None:
    """CheckpointError unless the file describes a byte-level BPE."""
    model: object = parsed.get("model")
    kind = cast("dict[str, Any]", model).get("type") if isinstance(model, dict) else None
    decoder = json.dumps(parsed.get("decoder"))
    if kind != "BPE" or '"ByteLevel"' not in decoder:
        raise CheckpointError(
            f"{source} holds a model of type {kind} with decoder {decoder[:80]}; expected "
            "byte-level BPE, as DeepSeek, Qwen and Llama 3 publish"
        )


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}; expected a tokenizer's model directory or "
            f"its {TOKENIZER_FILE}"
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8 at byte {error.start}; the file is corrupt, fetch it again"
        ) from error
