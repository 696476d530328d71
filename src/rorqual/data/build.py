"""Corpora to token shards: choose documents, train a tokenizer, encode, write.

The result depends on the corpora and the configuration alone (choices go by document name), so
two builds are equal byte for byte, and a build whose inputs have not changed is not repeated.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from rorqual.config.data import DataConfig
from rorqual.data.corpus import is_first, read_corpus
from rorqual.data.dedupe import Deduplicator
from rorqual.data.documents import LANGUAGES, Document, name_hash
from rorqual.data.fim import FIM_BEGIN, FIM_END, FIM_HOLE, FimPieces, cut_for_fim
from rorqual.data.index import INDEX_NAME, Index, ShardEntry, SplitEntry, load_index
from rorqual.data.manifest import Manifest, exclusive, load_manifest
from rorqual.data.shards import ShardWriter
from rorqual.errors import ConfigError, DataError
from rorqual.tokenizer import Tokenizer, train_tokenizer

# Raise it when the same inputs would give other shards.
_BUILD_VERSION = 1
_BATCH_CHARACTERS = 4_000_000
_LARGEST_UINT16_VOCABULARY = 1 << 16

# (bytes of text done, bytes in all, what happens now)
OnProgress = Callable[[int, int, str], None]


def build_shards(config: DataConfig, *, on_progress: OnProgress | None = None) -> Path:
    """Token shards for a configuration, made if they are not there yet; returns their index.json.

    They lie in `<root>/tokens-<vocab_size>/` with the tokenizer in `tokenizer/` beside them.
    """
    manifest = load_manifest(config.root)
    if not manifest.sources:
        raise DataError(
            f"{config.root}: there is no corpus; run `rorqual data fetch --profile small`, or "
            "`rorqual data add` with files of your own"
        )
    tokenizer = Tokenizer.load(config.tokenizer) if config.tokenizer is not None else None
    vocab_size = tokenizer.vocab_size if tokenizer is not None else config.vocab_size
    folder = config.root / f"tokens-{vocab_size}"
    fingerprint = _fingerprint(config, manifest, tokenizer)
    if _is_built(folder, fingerprint):
        return folder / INDEX_NAME

    with exclusive(config.root):
        if not _is_built(folder, fingerprint):  # another rank may have built it meanwhile
            report = on_progress or (lambda done, total, step: None)
            _build(config, manifest, tokenizer, folder, fingerprint, report)
    return folder / INDEX_NAME


def _build(
    config: DataConfig,
    manifest: Manifest,
    tokenizer: Tokenizer | None,
    folder: Path,
    fingerprint: str,
    report: OnProgress,
) -> None:
    """Makes the shards beside `folder` and puts them in its place once they are whole."""
    selection = _Selection(manifest, config, report)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    if tokenizer is None:
        tokenizer = _train(selection, config, report)
    tokenizer.save(partial / "tokenizer")
    splits = _encode(selection, tokenizer, config, partial, report)
    index = Index(
        fingerprint=fingerprint,
        vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        splits=splits,
    )
    index.write(partial / INDEX_NAME)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _fingerprint(config: DataConfig, manifest: Manifest, tokenizer: Tokenizer | None) -> str:
    """Names everything that the shards depend on."""
    corpora = {name: entry.corpus_sha256 for name, entry in sorted(manifest.sources.items())}
    if tokenizer is None:
        learnt_on = f"{config.tokenizer_sample_bytes}, digits {config.digits}"
        vocabulary = f"train {config.vocab_size} on {learnt_on}"
    else:
        probe = np.array(tokenizer.encode("The quick 鲸鱼 eats 12345 krill.\n\tif x:"), "<i8")
        sizes = tokenizer.token_num_bytes().astype("<i4")
        vocabulary = hashlib.sha256(probe.tobytes() + sizes.tobytes()).hexdigest()
    settings = [_BUILD_VERSION, vocabulary, config.fim_rate, config.mix, config.tokens_per_shard]
    text = json.dumps([settings, corpora], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_built(folder: Path, fingerprint: str) -> bool:
    if not (folder / INDEX_NAME).is_file():
        return False
    index = load_index(folder / INDEX_NAME)
    files = [shard.file for split in index.splits.values() for shard in split.shards]
    return index.fingerprint == fingerprint and all((folder / file).is_file() for file in files)


def _part(document: Document) -> str:
    """The part of the mix that a document belongs to: its language, or "chat"."""
    return "chat" if document.kind == "chat" else document.language


class _Selection:
    """Which documents of the corpora are used: no duplicates across sources, mixed by weight."""

    def __init__(self, manifest: Manifest, config: DataConfig, report: OnProgress) -> None:
        self._paths = [manifest.corpus_path(name) for name in sorted(manifest.sources)]
        self._dropped: set[str] = set()
        self._share: dict[str, float] = {}
        self.train_bytes = 0
        sizes = self._deduplicate(sum(e.bytes for e in manifest.sources.values()), report)
        self._set_shares(sizes, config)
        self.train_bytes = round(sum(sizes[name] * self._share[name] for name in sizes))

    def documents(self) -> Iterator[Document]:
        """The chosen documents of both splits, in a fixed order."""
        for path in self._paths:
            for document in read_corpus(path):
                if document.id not in self._dropped and self._is_in_mix(document):
                    yield document

    def _is_in_mix(self, document: Document) -> bool:
        share = self._share.get(_part(document), 0.0)
        return document.held_out or name_hash(document.id, "mix") < share * 2**64

    def _deduplicate(self, total: int, report: OnProgress) -> dict[str, int]:
        """Fills `_dropped`; returns the bytes of training text that stay, by part of the mix."""
        deduplicator = Deduplicator()
        sizes: dict[str, int] = {}
        done = 0
        for held_out in (True, False):  # so that the training copy is what goes
            for path in self._paths:
                for document in read_corpus(path):
                    if document.held_out != held_out:
                        continue
                    size = len(document.words.encode())
                    done += size
                    if not is_first(document, deduplicator):
                        self._dropped.add(document.id)
                    elif not held_out:
                        part = _part(document)
                        sizes[part] = sizes.get(part, 0) + size
                report(done, total, "finding duplicates")
        if not sizes:
            raise DataError(
                f"{self._paths[0].parent}: the corpora hold no training document; add more text "
                "with `rorqual data fetch` or `rorqual data add`"
            )
        return sizes

    def _set_shares(self, sizes: dict[str, int], config: DataConfig) -> None:
        """The share of each part's documents that is kept."""
        if config.mix is None:
            self._share = dict.fromkeys(sizes, 1.0)
            return
        weights: dict[str, float] = {**config.mix}
        absent = [part for part in weights if part not in sizes]
        if absent:
            raise ConfigError(
                f"data.mix asks for {', '.join(absent)}, of which the corpora hold nothing; take "
                "it out of the mix or add text in it"
            )
        # The largest total at which no part runs out.
        total = min(sizes[part] / weight for part, weight in weights.items())
        self._share = {name: total * weights.get(name, 0.0) / sizes[name] for name in sizes}


def _train(selection: _Selection, config: DataConfig, report: OnProgress) -> Tokenizer:
    share = min(1.0, config.tokenizer_sample_bytes / max(selection.train_bytes, 1))
    total = round(share * selection.train_bytes)

    def sample() -> Iterator[str]:
        done = 0
        for document in selection.documents():
            if not document.held_out and name_hash(document.id, "tokenizer") <= share * 2**64:
                done += len(document.words.encode())
                report(min(done, total), total, "training the tokenizer")
                yield document.words

    return train_tokenizer(sample(), vocab_size=config.vocab_size, digits=config.digits)


def _encode(
    selection: _Selection,
    tokenizer: Tokenizer,
    config: DataConfig,
    folder: Path,
    report: OnProgress,
) -> dict[str, SplitEntry]:
    small = tokenizer.vocab_size <= _LARGEST_UINT16_VOCABULARY
    dtype = np.dtype("<u2" if small else "<u4")
    writers: dict[str, _SplitWriter] = {}
    encoder = _Encoder(tokenizer, config.fim_rate)
    done = 0
    try:
        for batch in _batches(selection.documents()):
            for document, tokens in zip(batch, encoder.encode(batch), strict=True):
                split = f"validation-{document.language}" if document.held_out else "train"
                if split not in writers:
                    limit = config.tokens_per_shard if split == "train" else None
                    writers[split] = _SplitWriter(folder, split, dtype, limit)
                size = len(document.words.encode())
                writers[split].add(tokens, size)
                done += 0 if document.held_out else size
            report(min(done, selection.train_bytes), selection.train_bytes, "encoding")
        order = ["train", *(f"validation-{language}" for language in LANGUAGES)]
        return {split: writers[split].close() for split in order if split in writers}
    finally:
        for writer in writers.values():
            writer.abandon()


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in groups that are worth encoding in parallel."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Encoder:
    """Documents to tokens: begin, text (or prefix, suffix, middle), end."""

    def __init__(self, tokenizer: Tokenizer, fim_rate: float) -> None:
        self._tokenizer = tokenizer
        self._fim_rate = fim_rate
        special = tokenizer.special_tokens
        missing = [name for name in (FIM_BEGIN, FIM_HOLE, FIM_END) if name not in special]
        if missing and fim_rate > 0:
            raise ConfigError(
                f"data.fim_rate={fim_rate} needs {', '.join(missing)}, which the tokenizer lacks; "
                "set fim_rate to 0 or take a tokenizer with DeepSeek's special tokens"
            )
        self._begin, self._hole, self._end = (
            special.get(name, -1) for name in (FIM_BEGIN, FIM_HOLE, FIM_END)
        )

    def encode(self, documents: list[Document]) -> Iterator[list[int]]:
        """The tokens of each document; held-out ones and chats are never rewritten."""
        cuts: list[FimPieces | None] = [
            None
            if item.held_out or item.kind == "chat"
            else cut_for_fim(item.id, item.text, self._fim_rate)
            for item in documents
        ]
        texts: list[str] = []
        for document, pieces in zip(documents, cuts, strict=True):
            if document.kind == "text":
                texts.extend([document.text] if pieces is None else pieces)
        chats = [item.messages for item in documents if item.kind == "chat"]
        conversations = iter(self._tokenizer.encode_conversations(chats) if chats else [])
        encoded = iter(self._tokenizer.encode_batch(texts))
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        for document, pieces in zip(documents, cuts, strict=True):
            if document.kind == "chat":
                yield _closed(next(conversations).ids, bos, eos)
            elif pieces is None:
                yield [bos, *next(encoded), eos]
            else:
                prefix, suffix, middle = next(encoded), next(encoded), next(encoded)
                before = [bos, self._begin, *prefix, self._hole, *suffix]
                yield [*before, self._end, *middle, eos]


def _closed(ids: list[int], bos: int, eos: int) -> list[int]:
    """A conversation between one begin and one end token, which most templates print themselves."""
    before = [] if ids[:1] == [bos] else [bos]
    after = [] if ids[-1:] == [eos] else [eos]
    return [*before, *ids, *after]


class _SplitWriter:
    """The shards of one split; a new one is begun when `limit` tokens are in (None: never)."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype, limit: int | None) -> None:
        self._folder = folder
        self._split = split
        self._dtype = dtype
        self._limit = limit
        self._bytes = 0
        self._closed: list[ShardEntry] = []
        self._open: ShardWriter | None = None

    def add(self, tokens: list[int], text_bytes: int) -> None:
        """Appends a document."""
        if self._open is None:
            number = "" if self._limit is None else f"-{len(self._closed):05d}"
            self._open = ShardWriter(self._folder / f"{self._split}{number}.bin", self._dtype)
        self._open.add(tokens)
        self._bytes += text_bytes
        if self._limit is not None and self._open.num_tokens >= self._limit:
            self._close_shard(self._open)

    def close(self) -> SplitEntry:
        """Finishes the last shard."""
        if self._open is not None:
            self._close_shard(self._open)
        return SplitEntry(
            documents=sum(shard.documents for shard in self._closed),
            tokens=sum(shard.tokens for shard in self._closed),
            bytes=self._bytes,
            shards=tuple(self._closed),
        )

    def abandon(self) -> None:
        """Lets go of a file that was left unfinished by an error."""
        if self._open is not None:
            self._open.abandon()

    def _close_shard(self, shard: ShardWriter) -> None:
        checksum = shard.close()
        entry = ShardEntry(shard.path.name, shard.num_documents, shard.num_tokens, checksum)
        self._closed.append(entry)
        self._open = None
