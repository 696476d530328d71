"""Signatures, against the `model-signing` program as oracle in both directions."""

import base64
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing, verifying

from rorqual.release import (
    SIGNATURE_FILE,
    PrivateKey,
    TrustedKeys,
    examine,
    fresh_key,
    public_half,
    read_manifest,
    rotate,
    sign_model,
    signature_path,
    write_private_key,
)
from rorqual.release.dsse import seal

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
GITS_OWN = (".git", ".gitattributes", ".github", ".gitignore")


def trusting(*keys: PrivateKey) -> TrustedKeys:
    return TrustedKeys.of(*(public_half(key, "maker") for key in keys))


def oracle_accepts(model: Path, key: PrivateKey, folder: Path) -> bool:
    """Whether model-signing verifies the model with the public half of the key."""
    (folder / "maker.pem").write_text(public_half(key, "maker").pem)
    config = verifying.Config().use_elliptic_key_verifier(public_key=folder / "maker.pem")
    try:
        config.verify(model, signature_path(model))
    except ValueError:
        return False
    return True


def oracle_signs(model: Path, key: PrivateKey, folder: Path, **how: Any) -> None:
    write_private_key(folder / "private.pem", key)
    paths = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, *how.pop("ignored", [])])
    if how:
        paths.use_file_serialization(**how)
    config = signing.Config().set_hashing_config(paths)
    config.use_elliptic_key_signer(private_key=folder / "private.pem")
    config.sign(model, signature_path(model))


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_model_signing_verifies_what_we_sign(
    model: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = ec.generate_private_key(curve)
    sign_model(model, key)
    assert oracle_accepts(model, key, tmp_path)
    assert not oracle_accepts(model, fresh_key(), tmp_path)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_we_verify_what_model_signing_signs(
    model: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = ec.generate_private_key(curve)
    oracle_signs(model, key, tmp_path)
    trust = examine(model, trusting(key))
    assert (trust.state, trust.signer) == ("signed", "maker")
    statement = json.loads(payload_of(model))
    assert trust.digest == statement["subject"][0]["digest"]["sha256"]
    assert trust.digest == read_manifest(model).digest
    assert [entry["name"] for entry in statement["predicate"]["resources"]] == list(
        read_manifest(model).files
    )


def payload_of(model: Path) -> bytes:
    bundle = json.loads(signature_path(model).read_text())
    return base64.b64decode(bundle["dsseEnvelope"]["payload"])


def change(model: Path) -> None:
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[random.Random(5).randrange(len(content))] ^= 1
    weights.write_bytes(content)


def link(model: Path) -> None:
    """The same content, but from elsewhere."""
    (model / "config.json").rename(model.parent / "config.json")
    (model / "config.json").symlink_to(model.parent / "config.json")


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (change, "model.safetensors was changed"),
    "template": (
        lambda m: (m / "tokenizer_config.json").write_bytes(b'{"chat_template": "\xe9\xb2\xb9"}'),
        "tokenizer_config.json was changed",
    ),
    "log": (
        lambda m: (m / "evaluation/items.jsonl").write_bytes(b'{"text": "8"}\n'),
        "evaluation/items.jsonl was changed",
    ),
    "missing": (lambda m: (m / "a/b").unlink(), "a/b is missing"),
    "added": (lambda m: (m / "chat_template.jinja").touch(), "chat_template.jinja was added"),
    "deep": (lambda m: (m / "a/model.sig").touch(), "a/model.sig was added"),
    "hidden": (lambda m: (m / ".env").touch(), ".env was added"),
    "swapped": (
        lambda m: ((m / "a.txt").rename(m / "x"), (m / "a/b").rename(m / "a.txt")),
        "a.txt was changed",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampered_file_is_named_and_the_oracle_refuses_too(
    name: str, model: Path, key: PrivateKey, tmp_path: Path
) -> None:
    tamper, words = TAMPERINGS[name]
    sign_model(model, key)
    tamper(model)
    trust = examine(model, trusting(key))
    assert trust.state == "changed" and not trust.holds and trust.digest is None
    assert words in trust.problems
    assert not oracle_accepts(model, key, tmp_path)


def test_a_link_is_not_the_file_that_was_signed(model: Path, key: PrivateKey) -> None:
    sign_model(model, key)
    link(model)
    problems = examine(model, trusting(key)).problems
    assert "config.json is a link or a special file" in problems
    with pytest.raises(Exception, match=r"config\.json is a link"):
        sign_model(model, key)


def test_a_pipe_does_not_hang_and_is_named(model: Path, key: PrivateKey) -> None:
    sign_model(model, key)
    os.mkfifo(model / "pipe")
    assert examine(model, trusting(key)).problems == ("pipe is a link or a special file",)


def test_no_flipped_byte_of_the_signature_passes(model: Path, key: PrivateKey) -> None:
    """Where it still verifies, the flip was in white space or in what nobody signs or reads."""
    sign_model(model, key)
    path, trusted = signature_path(model), trusting(key)
    original = path.read_bytes()
    envelope = json.loads(original)["dsseEnvelope"]
    signed = (envelope["payload"], envelope["signatures"][0]["sig"])
    parts = [(original.index(part.encode()), len(part) - 4) for part in signed]
    rng = random.Random(3)
    for start, length in parts:
        for place in rng.sample(range(start, start + length), 40):
            flipped = bytearray(original)
            flipped[place] ^= 1 << rng.randrange(7)
            path.write_bytes(flipped)
            assert examine(model, trusted).state == "changed", f"byte {place}"
    path.write_bytes(original)
    assert examine(model, trusted).holds


def test_whose_signature_it_is_decides(model: Path, key: PrivateKey) -> None:
    assert examine(model, trusting(key)).state == "unsigned"
    sign_model(model, fresh_key())
    stranger = examine(model, trusting(key))
    assert stranger.state == "unknown_key" and stranger.digest is None
    assert len(stranger.fingerprint or "") == 64


def test_a_claimed_key_is_not_believed(model: Path, key: PrivateKey) -> None:
    """A stranger's signature with our fingerprint written beside it."""
    sign_model(model, fresh_key())
    path = signature_path(model)
    bundle = json.loads(path.read_text())
    hint = public_half(key, "maker").fingerprint
    bundle["verificationMaterial"]["publicKey"]["hint"] = hint
    path.write_text(json.dumps(bundle))
    assert examine(model, trusting(key)).state == "changed"


def test_a_signature_without_a_named_key_is_tried_with_all(model: Path, key: PrivateKey) -> None:
    sign_model(model, key)
    path = signature_path(model)
    bundle = json.loads(path.read_text())
    bundle["verificationMaterial"]["publicKey"] = {}
    path.write_text(json.dumps(bundle))
    assert examine(model, trusting(fresh_key(), key)).holds
    assert examine(model, trusting(fresh_key())).state == "changed"


def test_another_kind_of_statement_is_not_a_model_signature(model: Path, key: PrivateKey) -> None:
    """What a key signs for another purpose must not count here: the type is under the signature."""
    sign_model(model, key)
    path = signature_path(model)
    bundle = json.loads(path.read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"] = seal("text/plain", payload, key)
    path.write_text(json.dumps(bundle))
    assert "expected application/vnd.in-toto+json" in examine(model, trusting(key)).problems[0]
    bundle["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+json"
    path.write_text(json.dumps(bundle))
    assert examine(model, trusting(key)).problems == ("model.sig was changed after it was signed",)
    bundle["dsseEnvelope"] = json.loads(rotate(key, public_half(fresh_key(), "next")))
    path.write_text(json.dumps(bundle))
    assert examine(model, trusting(key)).state == "changed"


def signed_statement(model: Path, key: PrivateKey, **changes: Any) -> None:
    """Sign a statement that our signer would not write."""
    sign_model(model, key)
    bundle = json.loads(signature_path(model).read_text())
    statement = json.loads(payload_of(model))
    for name, value in changes.items():
        if name in ("resources", "serialization"):
            statement["predicate"][name] = value
        else:
            statement[name] = value
    text = json.dumps(statement).encode()
    bundle["dsseEnvelope"] = seal("application/vnd.in-toto+json", text, key)
    signature_path(model).write_text(json.dumps(bundle))


FILES = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
ENTRY = {"algorithm": "sha256", "digest": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"serialization": FILES | {"ignore_paths": ["model.safetensors"]}},
            "leaves out model.saf",
        ),
        ({"serialization": FILES | {"method": "shards"}}, "lists shards by sha256"),
        ({"serialization": FILES | {"hash_type": "blake3"}}, "lists files by blake3"),
        ({"resources": [ENTRY | {"name": "../outside"}]}, "'../outside'"),
        ({"resources": [ENTRY | {"name": "/etc/passwd"}]}, "'/etc/passwd'"),
        ({"resources": [ENTRY | {"name": "a"}, ENTRY | {"name": "a"}]}, "used twice"),
        ({"resources": []}, "its digest is"),
        ({"resources": [ENTRY | {"name": "a", "algorithm": "md5"}]}, "a has no SHA-256"),
        ({"predicateType": "https://example.com/other"}, "expected https://in-toto.io/Statement"),
        ({"subject": []}, "not a model statement"),
    ],
)
def test_a_statement_that_says_less_than_every_file_is_refused(
    changes: dict[str, Any], words: str, model: Path, key: PrivateKey
) -> None:
    signed_statement(model, key, **changes)
    trust = examine(model, trusting(key))
    assert trust.state == "changed" and words in trust.problems[0]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "\xff", '{"mediaType": 1}', "[" * 100_000, "7"]
)
def test_rubbish_in_place_of_a_signature_is_refused(
    text: str, model: Path, key: PrivateKey
) -> None:
    signature_path(model).write_bytes(text.encode("latin-1"))
    assert examine(model, trusting(key)).state == "changed"


def test_what_model_signing_leaves_out_is_gits_alone(
    model: Path, key: PrivateKey, tmp_path: Path
) -> None:
    oracle_signs(model, key, tmp_path)
    for name in GITS_OWN:
        (model / name).touch()
    assert examine(model, trusting(key)).holds and oracle_accepts(model, key, tmp_path)


def test_one_file_is_signed_beside_itself(model: Path, key: PrivateKey) -> None:
    """As GGUF models come."""
    file = model / "model.safetensors"
    sign_model(file, key)
    assert signature_path(file).name == "model.safetensors.sig"
    assert examine(file, trusting(key)).holds
    change(model)
    assert examine(file, trusting(key)).problems == ("model.safetensors was changed",)


def test_one_shard_of_several_is_refused(model: Path, key: PrivateKey) -> None:
    shard = model / "m-00001-of-00002.gguf"
    shard.touch()
    with pytest.raises(Exception, match="one of several files"):
        sign_model(shard, key)
    assert examine(shard, trusting(key)).state == "unsigned"


def test_the_same_files_and_key_give_the_same_signature(model: Path, key: PrivateKey) -> None:
    sign_model(model, key)
    first = signature_path(model).read_bytes()
    sign_model(model, key)
    assert signature_path(model).read_bytes() == first


def test_the_fingerprint_is_what_sha256sum_says(tmp_path: Path, key: PrivateKey) -> None:
    public = public_half(key, "maker")
    (tmp_path / "maker.pem").write_text(public.pem)
    assert read_manifest(tmp_path / "maker.pem").files == {".": public.fingerprint}


def test_control_characters_in_names_are_shown_not_sent(model: Path, key: PrivateKey) -> None:
    sign_model(model, key)
    (model / "x\x1b[31m\n").touch()
    assert examine(model, trusting(key)).problems == (r"x\x1b[31m\n was added",)


def test_a_private_key_is_its_owners_alone(tmp_path: Path, key: PrivateKey) -> None:
    path = tmp_path / "keys" / "private.pem"
    write_private_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_private_key(path, fresh_key())
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [
        "private.pem"
    ]
    assert serialization.load_pem_private_key(before, None)
