"""A small directory to sign, and keys that exist only while a test runs."""

from pathlib import Path

import pytest

from rorqual.release import PrivateKey, fresh_key


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Files at two depths, whose order by path differs from their order by text."""
    directory = tmp_path / "whale"
    for name, content in {
        "config.json": b'{"model_type": "deepseek_v3"}',
        "model.safetensors": bytes(range(256)) * 64,
        "tokenizer_config.json": '{"chat_template": "鲸"}'.encode(),
        "a/b": b"behind a.txt by text, before it by path",
        "a.txt": b"",
        "evaluation/items.jsonl": b'{"text": "7"}\n',
        "说明.md": "中文".encode(),
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


@pytest.fixture
def key() -> PrivateKey:
    return fresh_key()
