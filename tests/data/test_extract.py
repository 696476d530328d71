"""Extractors, each on a sample of its format written here byte by byte."""

import gzip
import json
import struct
import zlib

import pytest

from rorqual.data.archives import Member
from rorqual.data.extract import EXTRACTORS
from rorqual.errors import DataError


def extract(extractor: str, *members: tuple[str, bytes | str]) -> dict[str, str]:
    """Name to text of what an extractor finds."""
    encoded = [Member(n, data.encode() if isinstance(data, str) else data) for n, data in members]
    return dict(EXTRACTORS[extractor](encoded))


def test_html_keeps_the_main_part_and_preformatted_text() -> None:
    page = """<html><head><title>No</title><script>var no;</script></head><body>
    <header>No</header><nav>No</nav><div role="main"><h1>Krill &amp;
    whales<a class="headerlink" href="#">P</a></h1><p>A <b>small</b>
    animal.</p><pre>def f():
    return  1 &lt; 2</pre><ul><li>one<li>two</ul><!-- no --><style>no</style>
    <table><tr><td>a</td><td>b</td></tr></table></div><footer>No</footer></body></html>"""
    expected = "Krill & whales\nA small animal.\ndef f():\n    return  1 < 2\none\ntwo\na b"
    assert extract("html", ("x.html", page)) == {"x.html": expected}


def test_html_without_a_main_part_gives_its_body() -> None:
    assert extract("html", ("x.html", "<body>one<br>two</body>")) == {"x.html": "one\ntwo"}


def test_lines_that_frame_most_pages_are_left_out() -> None:
    page = "<body><p>Menu<p>Search<p>Page {0}<p>Menu<p>Body {0}<p>Imprint</body>"
    pages = [(f"{number}.html", page.format(number)) for number in range(8)]
    found = extract("html", *pages, ("other.html", "<body>Search<p>Alone</body>"))
    assert found["3.html"] == "Page 3\nMenu\nBody 3"
    assert found["other.html"] == "Alone"
    assert extract("html", *pages[:4])["3.html"].startswith("Menu\nSearch\nPage 3")


def test_manpages_lose_their_macros() -> None:
    page = """.\\" a comment
.TH LS 1 2022 "GNU" 命令
.SH 名称
ls \\- 列出目录
.SH "选项 表"
.TP
\\fB\\-a\\fP, \\fB\\-\\-all\\fP
不要忽略以 . 起始的条目
.PP
.BR cat (1)
.B grep
a\\eb \\(bu c
"""
    text = extract("manpages", ("man1/ls.1.gz", gzip.compress(page.encode())))["man1/ls.1"]
    assert text == (
        "名称\nls - 列出目录\n\n选项 表\n-a, --all\n不要忽略以 . 起始的条目\n\n"
        "cat(1)\ngrep\na\\b • c"
    )
    assert extract("manpages", ("x.1", ".so man1/ls.1\n")) == {"x.1": ""}


def test_pod_loses_its_commands() -> None:
    pod = (
        "=head1 NAME\n\nB<f> calls C<< $x->y >> if L<perl> E<gt> 5.\n\n=over 4\n\n=item one\n\n=cut"
    )
    text = extract("pod", ("x.pod", pod))["x.pod"]
    assert text.split("\n\n") == ["NAME", "f calls $x->y if perl > 5.", "", "one", ""]


def test_text_members_may_be_compressed_and_bad_ones_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = extract("text", ("a.txt.gz", gzip.compress(b"whale")), ("b.txt", b"caf\xe9"))
    assert found == {"a.txt": "whale"}
    assert "b.txt: left out" in caplog.text


def test_sword_blocks_are_found_by_their_index() -> None:
    blocks = [
        b'<div type="x-p"/>Blessed &amp; <hi type="italic">glad</hi> is the man.<p/>Next.\x00',
        "<verse/>Second “block”".encode(),
    ]
    packed = [zlib.compress(block) for block in blocks]
    rows, offset = b"", 0
    for block, data in zip(blocks, packed, strict=True):
        rows += struct.pack("<III", offset, len(data), len(block))
        offset += len(data)
    found = extract(
        "sword",
        ("m/ot.czz", b"".join(packed)),
        ("m/ot.czs", rows),
        ("m/nt.czs", b""),
        ("m/nt.czz", b""),
    )
    assert found == {
        "ot-0000": "Blessed & glad is the man.\n\nNext.",
        "ot-0001": "Second “block”",
    }
    with pytest.raises(DataError, match=r"ot\.czz is not in the package"):
        extract("sword", ("m/ot.czs", rows))


def r_record(lines: list[str], version: int) -> bytes:
    """A character vector as R serialises and lazy-loads it."""
    data = b"X\n" + struct.pack(">iii", version, 0x00040201, 0x00030500)
    if version == 3:
        data += struct.pack(">i", 5) + b"UTF-8"
    data += struct.pack(">Ii", 16, len(lines))
    for line in lines:
        data += struct.pack(">Ii", 0x00040009, len(line.encode())) + line.encode()
    return struct.pack(">I", len(data)) + zlib.compress(data)


def test_r_data_gives_unwrapped_books() -> None:
    book = ["THE WHALE", "", "It was a", "long swim —", "", "", "north."]
    other = b"X\n" + struct.pack(">iiiI", 2, 0, 0, 10)  # a logical vector
    data = r_record(book, 3) + struct.pack(">I", len(other)) + zlib.compress(other)
    found = extract("rdata", ("Rdata.rdb", data + r_record(["", "Krill"], 2)))
    assert found == {"the-whale": "THE WHALE\n\nIt was a long swim —\n\nnorth.", "krill": "Krill"}
    with pytest.raises(DataError, match="no R record at byte 0"):
        extract("rdata", ("Rdata.rdb", b"0123456789"))


def test_chapters_are_numbered() -> None:
    data = json.dumps(["第一回\n\n  话说\t天下\n", "第二回"])
    assert extract("chapters", ("x.json", data)) == {
        "chapter-001": "第一回\n话说\t天下",
        "chapter-002": "第二回",
    }


def test_poems_are_found_however_deep_they_lie() -> None:
    data = [
        {"title": "登樓", "author": "王", "paragraphs": ["白日。", "黃河。"], "tags": ["x"]},
        {"title": "集", "content": [{"chapter": "行", "paragraphs": ["寥落。"], "author": None}]},
        {"name": "杜", "desc": "詩人。"},
    ]
    found = extract("poems", ("d/p.json", json.dumps(data)))
    assert found == {
        "d/p#0-登樓": "登樓\n王\n白日。\n黃河。",
        "d/p#1-行": "行\n寥落。",
        "d/p#2-杜": "杜\n詩人。",
    }


def test_wiki_leads_carry_their_titles() -> None:
    data = json.dumps({"Krill": {"extract": "Krill are small.", "topic": "Biology"}})
    assert extract("wiki", ("s.json", data)) == {"Krill": "Krill\n\nKrill are small."}


def test_wordnet_glosses_carry_their_words_and_are_paged() -> None:
    line = '0000{0} 29 v 02 heave_up 0 sigh(p) 4 001 @ 00001740 v 0000 | utter {0}; "a sigh"  \n'
    data = "  1 This is the licence. | no\n" + "".join(line.format(n) for n in range(45))
    found = extract("wordnet", ("wordnet/data.verb", data))
    assert list(found) == ["verb-00000", "verb-00001"]
    assert found["verb-00000"].split("\n")[0] == 'heave up, sigh: utter 0; "a sigh"'
    assert len(found["verb-00001"].split("\n")) == 5


def test_dictionary_entries_lose_their_marks() -> None:
    text = (
        'Abdomen \\Ab*do"men\\, n. [L. abdomen]\n   1. The {belly}.\n      [1913 Webster]\n\n'
        "   2. The rear.\n\nAbduct \\Ab*duct\\, v. t.\n   To take away.\n   [1913 Webster]\n"
    )
    found = extract("dictionary", ("dictd/gcide.dict.dz", gzip.compress(text.encode())))
    assert found == {
        "gcide-00000": "Abdomen, n. [L. abdomen]\n   1. The belly.\n\n   2. The rear.\n\n"
        "Abduct, v. t.\n   To take away."
    }


def test_service_documentation_is_taken_once() -> None:
    model = {"documentation": "<p>Lists <i>whales</i>.</p>", "shapes": [{"documentation": "Same"}]}
    data = gzip.compress(json.dumps(model).encode())
    found = extract(
        "botocore",
        ("botocore/data/a/2020-01-01/service-2.json.gz", data),
        ("botocore/data/b/2020-01-01/service-2.json.gz", data),
    )
    assert found == {"a": "Lists whales.\nSame", "b": ""}


def test_python_tests_and_tables_are_left_out() -> None:
    kept = "def f() -> int:\n    return 1\n"
    found = extract(
        "python",
        ("pkg/a.py", kept),
        ("pkg/tests/b.py", kept),
        ("pkg/test_c.py", kept),
        ("pkg/d_test.py", kept),
        ("pkg/contest.py", kept),
        ("pkg/table.py", "x = [" + "1, " * 900 + "]\n"),
        ("pkg/huge.py", "x = 1\n" * 100_000),
    )
    assert list(found) == ["pkg/a.py", "pkg/contest.py"]
