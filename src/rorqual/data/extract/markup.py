"""Markup to plain text: HTML pages, man pages (roff), Perl's pod, and files that are text already.

Regular expressions rather than parsers: these are machine-made pages of known manuals, 30 MB of
them, and a parser written in Python takes minutes.
"""

import gzip
import html
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from rorqual.data.archives import Member

_log = logging.getLogger(__name__)

_MAIN = (
    re.compile(r"<main\b.*?</main\s*>", re.S | re.I),
    re.compile(r"<div\b[^>]*\bid=[\"']DisplayArea[\"'].*", re.S | re.I),
    re.compile(r"<div\b[^>]*\brole=[\"']main[\"'].*", re.S | re.I),
    re.compile(r"<body\b.*", re.S | re.I),
)
_DROPPED = re.compile(
    r"<!--.*?-->"
    r"|<(script|style|nav|header|footer|aside|noscript|template|svg|button|select)\b.*?</\1\s*>"
    # Navigation that Sphinx, DocBook and LibreOffice mark by class or id alone.
    r"|<div\b[^>]*\b(?:class|id)=[\"'](?:nav|sphinxsidebar|related|DonationFrame)[a-z]*[\"'].*?</div>"
    r"|<a\b[^>]*\bclass=[\"']headerlink[\"'].*?</a>",
    re.S | re.I,
)
_PRE = re.compile(r"(<pre\b.*?</pre\s*>)", re.S | re.I)
_BLOCK = re.compile(
    r"</?(?:p|div|h[1-6]|li|ul|ol|dl|dt|dd|table|tr|blockquote|br|hr|section|article|main|body)\b"
    r"[^>]*>",
    re.I,
)
_CELL = re.compile(r"</t[dh]\s*>", re.I)
_TAG = re.compile(r"<[^>]*>")
_SPACES = re.compile(r"\s+")
_FEWEST_FRAMED_PAGES = 5


def decoded(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """The text of UTF-8 members (gzipped or not); others are left out, with a warning."""
    for name, data in members:
        try:
            if name.endswith(".gz"):
                name, data = name.removesuffix(".gz"), gzip.decompress(data)
            yield name, data.decode("utf-8")
        except (UnicodeDecodeError, OSError, EOFError) as error:
            _log.warning("%s: left out (%s)", name, error)


def extract_text(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """Files that are plain text already (reStructuredText, AsciiDoc)."""
    yield from decoded(members)


def html_to_text(page: str) -> str:
    """The main part of an HTML page: a line a block, preformatted text kept as it is."""
    for pattern in _MAIN:
        found = pattern.search(page)
        if found is not None:
            page = found[0]
            break
    page = _DROPPED.sub(" ", page)
    lines: list[str] = []
    for part in _PRE.split(page):
        if part[:4].lower() == "<pre":
            lines.extend(html.unescape(_TAG.sub("", part)).strip("\n").split("\n"))
            continue
        flowing = _CELL.sub(" ", _BLOCK.sub("\x00", _SPACES.sub(" ", part)))
        blocks = html.unescape(_TAG.sub("", flowing)).split("\x00")
        lines.extend(stripped for block in blocks if (stripped := block.strip()))
    return "\n".join(lines).replace("\xa0", " ")


def extract_html(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """One document a page, without the lines that frame most pages (menus, slogans)."""
    pages = [(name, html_to_text(page).split("\n")) for name, page in decoded(members)]
    counts = Counter(line for _, lines in pages for line in set(lines))
    often = max(len(pages) / 2, _FEWEST_FRAMED_PAGES)
    frame = {line for line, count in counts.items() if count > often}
    for name, lines in pages:
        inner = [number for number, line in enumerate(lines) if line not in frame]
        yield name, "\n".join(lines[inner[0] : inner[-1] + 1]) if inner else ""


# Fonts, sizes, zero-width marks and comments; then characters; `\e` last of all.
_ROFF_IGNORED = re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[+-]?\d+|\\[,/&|^:%c~]|\\\n|\\\"[^\n]*")
_ROFF_BACKSLASH = "\x00"
_ROFF_ESCAPES = (
    (re.compile(r"\\(?:e|\\)"), _ROFF_BACKSLASH),
    (re.compile(r"\\\(lq|\\\(rq|\\\*\(lq|\\\*\(rq|\\\[[lr]q\]"), '"'),
    (re.compile(r"\\\(aq|\\\(oq|\\\(cq|\\\[aq\]"), "'"),
    (re.compile(r"\\\(bu|\\\[bu\]"), "•"),
    (re.compile(r"\\\(em|\\\[em\]"), "—"),
    (re.compile(r"\\\(..|\\\*\(..|\\\[[^\]]*\]|\\\*.|\\[mZhvwkL]'[^']*'|\\n\(?\w+"), ""),
    (re.compile(r"\\([ 0])"), " "),
    (re.compile(r"\\(.)"), r"\1"),
    (re.compile(_ROFF_BACKSLASH), r"\\"),
)
_ROFF_TEXT_MACROS = frozenset("B I R BR RB BI IB IR RI SM SB SH SS TP IP Sh Ss Nm Nd Fl Ar".split())
_ROFF_HEADINGS = frozenset("SH SS Sh Ss".split())
_ROFF_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')


def roff_to_text(page: str) -> str:
    """A man page without its macros; headings keep a line of their own."""
    lines: list[str] = []
    for line in _ROFF_IGNORED.sub("", page).split("\n"):
        if not line.startswith((".", "'")):
            lines.append(line)
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        words = [quoted or bare for quoted, bare in _ROFF_ARGUMENT.findall(rest)]
        if macro in _ROFF_HEADINGS:
            lines.extend(["", " ".join(words)])
        elif macro in ("PP", "P", "LP", "Pp", "sp"):
            lines.append("")
        elif macro in _ROFF_TEXT_MACROS and words:
            joint = "" if len(macro) == 2 and macro.isupper() and macro not in ("IP", "SM") else " "
            lines.append(words[0] if macro in ("IP", "TP") else joint.join(words))
    text = "\n".join(lines)
    for pattern, replacement in _ROFF_ESCAPES:
        text = pattern.sub(replacement, text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def extract_manpages(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """One document a page; pages that only point to another (`.so`) come out empty."""
    for name, page in decoded(members):
        yield name, "" if page.startswith(".so ") else roff_to_text(page)


_POD_COMMAND = re.compile(r"^=(\w+)[ \t]*(.*)$", re.M)
_POD_CODE = re.compile(r"[BCFILSXZ](?:<< (.*?) >>|<([^<>]*)>)", re.S)
_POD_ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}
_POD_ESCAPE = re.compile(r"E<(\w+)>")


def pod_to_text(page: str) -> str:
    """Perl's documentation format without its commands and formatting codes."""
    page = _POD_COMMAND.sub(
        lambda m: m[2] if m[1] in ("head1", "head2", "head3", "item") else "", page
    )
    for _ in range(3):  # codes nest: B<C<x>>
        page = _POD_CODE.sub(lambda m: m[1] if m[1] is not None else m[2], page)
    return _POD_ESCAPE.sub(lambda m: _POD_ESCAPES.get(m[1], m[1]), page)


def extract_pod(members: Iterable[Member]) -> Iterator[tuple[str, str]]:
    """One document a .pod file."""
    for name, page in decoded(members):
        yield name, pod_to_text(page)
