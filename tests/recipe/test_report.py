"""The report: one file, two languages, every picture, and words for all that can happen."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import rorqual.rl.doctor
from rorqual.config.recipe import load_recipe
from rorqual.recipe.history import read_history
from rorqual.recipe.report import write_recipe_report
from rorqual.recipe.words import CAPTIONS, FINDINGS_ZH, KINDS, LABELS, TITLES, both

VOID = {"meta", "input", "use", "path", "br"}


class Page(HTMLParser):
    """Balanced tags, and the text of each language."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = {"en": "", "zh": ""}
        self.languages: list[str | None] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
            self.languages.append(dict(attrs).get("class"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open and self.open.pop() == tag, tag
        self.languages.pop()

    def handle_data(self, data: str) -> None:
        hidden = {"en": "zh", "zh": "en"}
        for language, other in hidden.items():
            if other not in self.languages and "style" not in self.open:
                self.text[language] += data


@pytest.fixture(scope="module")
def page(finished: Path) -> tuple[str, Page]:
    text = (finished / "report.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(text)
    assert not parsed.open
    return text, parsed


def test_it_needs_no_other_file_and_no_network(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert not {"img", "link", "iframe", "a"} & set(parsed.tags)
    assert parsed.tags.count("script") == 1
    references = re.findall(r"""(?:src|href)=["']?([^"'>\s]+)""", text)
    assert all(reference.startswith("#") for reference in references)
    assert "url(http" not in text and "@import" not in text


def test_each_stage_of_learning_has_its_eight_pictures(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert parsed.tags.count("details") == 3
    assert parsed.tags.count("figure") == 3 * 7 and parsed.tags.count("svg") == 3 * 6
    for name in CAPTIONS.keys() - {"level"}:  # there is no curriculum in the tiny recipe
        assert text.count(both(TITLES[name], "tspan")) == (0 if name == "samples" else 3), name
        assert parsed.text["en"].count(CAPTIONS[name][0]) == 3
        assert parsed.text["zh"].count(CAPTIONS[name][1]) == 3
    assert text.count(both(TITLES["level"])) == 3


def test_each_language_stands_alone(page: tuple[str, Page]) -> None:
    _, parsed = page
    labels = {english: chinese for english, chinese in LABELS.items() if " " in english}
    shown = [CAPTIONS[name] for name in CAPTIONS if name != "level"]
    for english, chinese in [*TITLES.values(), *shown, *KINDS.values(), *labels.items()]:
        assert english in parsed.text["en"] and english not in parsed.text["zh"], english
        assert chinese in parsed.text["zh"] and chinese not in parsed.text["en"], chinese


def test_the_table_has_every_evaluated_model(page: tuple[str, Page], finished: Path) -> None:
    _, parsed = page
    for name in ("base", "zero", "cold", "r1", "final", "student"):
        assert re.search(rf"\b{name}\b", parsed.text["en"])
    assert "94.61K" in parsed.text["en"] and "24.43K" in parsed.text["en"]
    assert "with 26% of the parameters" in parsed.text["en"]
    assert "参数只有它的 26%" in parsed.text["zh"]
    assert "% of them think before they answer" in parsed.text["en"]


def test_the_same_questions_are_shown_at_three_evaluations(finished: Path) -> None:
    history = read_history(finished / "03-zero")
    by_step: dict[int, list[str]] = {}
    for record in history.samples:
        by_step.setdefault(record["step"], []).append(record["prompt"])
    assert list(by_step) == [0, 3, 6, 9]
    first = by_step[0]
    assert len(first) == len(set(first)) == 2 and all(asked == first for asked in by_step.values())
    assert history.highest_k == 4
    low, high = history.evaluations[0]["eval/all/pass@4_interval"]
    assert 0 <= low <= history.evaluations[0]["eval/all/pass@4"] <= high <= 1


def test_an_unfinished_recipe_has_a_report_too(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "01-corpus").symlink_to(finished / "01-corpus")
    report = write_recipe_report(load_recipe("tiny"), tmp_path)
    text = report.read_text(encoding="utf-8")
    assert text.count("not finished") == 11 and "<svg" not in text


def test_there_are_words_for_every_finding_of_the_doctor() -> None:
    source = Path(rorqual.rl.doctor.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'Finding\(\s*"(\w+)"', source))
    assert codes and codes == FINDINGS_ZH.keys()


def test_every_text_is_in_two_languages() -> None:
    for english, chinese in (*CAPTIONS.values(), *TITLES.values(), *LABELS.items()):
        assert not re.search("[一-鿿]", english) and re.search("[一-鿿]", chinese)
