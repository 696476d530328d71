"""Dates: weekdays ahead and back, days between two dates, leap years.

Counting is from the first date to the second (March 5 to March 7 is 2 days). Below level 4 no span
crosses the end of February, so the year does not matter; level 4 names the year and decides.
"""

import calendar
import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, ClassVar

from rorqual.tasks.answers import final_answer, is_same_answer, split_reasoning
from rorqual.tasks.base import (
    RIGHT,
    Language,
    Problem,
    Score,
    Solution,
    Task,
    check_level,
    draw_language,
    wrong,
)
from rorqual.tasks.slips import corrected, draw_manner, near_value

_WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_COMMON_YEAR = 2023  # stands for any year where no leap day can matter
_LARGEST_TURN = 50  # days ahead or back, level 1
_QUESTIONS = {
    "ahead": {
        "en": (
            "Today is {weekday}. What weekday is it in {days} days?",
            "It is {weekday}. Which weekday comes {days} days later?",
        ),
        "zh": ("今天是{weekday}，{days}天后是星期几？", "今天{weekday}。再过{days}天是星期几？"),
    },
    "back": {
        "en": (
            "Today is {weekday}. What weekday was it {days} days ago?",
            "It is {weekday}. Which weekday was {days} days earlier?",
        ),
        "zh": ("今天是{weekday}，{days}天前是星期几？", "今天{weekday}。往前{days}天是星期几？"),
    },
    "between": {
        "en": ("How many days is it from {first} to {last}?", "{first} to {last}: how many days?"),
        "zh": ("从{first}到{last}过了多少天？", "{first}再过多少天是{last}？"),
    },
    "after": {
        "en": (
            "What date is {days} days after {first}?",
            "It is {first}. What date in {days} days?",
        ),
        "zh": ("{first}再过{days}天是几月几日？", "今天是{first}，{days}天后是几月几日？"),
    },
    "weekday": {
        "en": (
            "{first} is a {weekday}. What weekday is {last}?",
            "If {first} is a {weekday}, which weekday is {last}?",
        ),
        "zh": ("{first}是{weekday}，{last}是星期几？", "已知{first}是{weekday}。{last}是星期几？"),
    },
}
_KINDS_BY_LEVEL = (("ahead", "back"), ("between", "after"), ("weekday",), ("between", "weekday"))
_LEAP = {
    "en": (
        "{year} is no multiple of 4: February has 28 days",
        "{year} is a multiple of 4: February has 29 days",
        "{year} is a multiple of 100, not of 400: February has 28 days",
        "{year} is a multiple of 400: February has 29 days",
    ),
    "zh": (
        "{year}不是4的倍数：2月有28天",
        "{year}是4的倍数：2月有29天",
        "{year}是100的倍数，不是400的倍数：2月有28天",
        "{year}是400的倍数：2月有29天",
    ),
}


class Dates(Task):
    """Levels: weekday n days off; dates within a year; weekday of a date; across February."""

    name: ClassVar[str] = "dates"
    num_levels: ClassVar[int] = len(_KINDS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        kind = rng.choice(_KINDS_BY_LEVEL[level - 1])
        if level == 1:
            days = rng.randint(1, _LARGEST_TURN)
            data: dict[str, Any] = {"kind": kind, "weekday": rng.randrange(7), "days": days}
        else:
            first, last = _draw_across_february(rng) if level == 4 else _draw_span(rng, level)
            data = {"kind": kind, "weekday": rng.randrange(7), "days": (last - first).days}
            data |= {"first": first.isoformat(), "last": last.isoformat(), "year": level == 4}
            if level == 4:
                data["weekday"] = first.weekday()
        spoken = draw_language(rng, language)
        template = rng.choice(_QUESTIONS[kind][spoken])
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=template.format(**_words(data, spoken)),
            answer=_answer(data, spoken),
            key=" ".join(str(data[name]) for name in _KEY_PARTS[kind] if name in data),
            data=data,
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        data, language = problem.data, problem.language
        slips = draw_manner(rng) == "slip"
        lines: list[str] = []
        if "first" in data:
            first, last = date.fromisoformat(data["first"]), date.fromisoformat(data["last"])
            if data["year"]:
                lines.append(_leap_line(first.year, language))
            counted = _count_after if data["kind"] == "after" else _count_between
            lines += counted(first, last, language)
        if data["kind"] in ("ahead", "back", "weekday"):
            lines += _count_weekdays(data, language)
        if slips:
            lines[-1] = _with_slip(lines[-1], language, rng)
        return Solution("\n".join(lines), f"\\boxed{{{problem.answer}}}")

    def score(self, problem: Problem, completion: str) -> Score:
        """As the default, and Chinese weekdays may be written 周四, 礼拜四, 星期天."""
        _, content = split_reasoning(completion)
        got = None if content is None else final_answer(content)
        if got is None:
            return wrong("no answer")
        if problem.language == "zh" and problem.answer in _WEEKDAYS["zh"]:
            got = got.replace("礼拜", "星期").replace("星期天", "星期日")
            got = got.replace("周天", "周日").replace("周", "星期")
        return RIGHT if is_same_answer(got, problem.answer) else wrong("wrong answer")


_KEY_PARTS = {
    "ahead": ("kind", "weekday", "days"),
    "back": ("kind", "weekday", "days"),
    "between": ("kind", "first", "last"),
    "after": ("kind", "first", "days"),
    "weekday": ("kind", "first", "last", "weekday"),
}


def _draw_span(rng: random.Random, level: int) -> tuple[date, date]:
    """Two dates of March to December; at level 2 at most 40 days apart."""
    first = date(_COMMON_YEAR, 3, 1) + timedelta(rng.randrange(250))
    days = rng.randint(3, 40 if level == 2 else 90)
    return first, min(first + timedelta(days), date(_COMMON_YEAR, 12, 31))


def _draw_across_february(rng: random.Random) -> tuple[date, date]:
    """From January or February to March to May of one year; one in eight a full century."""
    year = rng.randrange(1900, 2101, 100) if rng.randrange(8) == 0 else rng.randint(1904, 2096)
    first = date(year, 1, 1) + timedelta(rng.randrange(59))
    return first, date(year, 3, 1) + timedelta(rng.randrange(92))


def _words(data: dict[str, Any], language: Language) -> dict[str, object]:
    words: dict[str, object] = {
        "weekday": _WEEKDAYS[language][data["weekday"]],
        "days": data["days"],
    }
    for name in ("first", "last"):
        if name in data:
            words[name] = _spell(date.fromisoformat(data[name]), language, year=data["year"])
    return words


def _spell(day: date, language: Language, *, year: bool = False) -> str:
    if language == "zh":
        return (f"{day.year}年" if year else "") + f"{day.month}月{day.day}日"
    return f"{_MONTHS[day.month - 1]} {day.day}" + (f", {day.year}" if year else "")


def _answer(data: dict[str, Any], language: Language) -> str:
    if data["kind"] == "between":
        return str(data["days"])
    if data["kind"] == "after":
        return _spell(date.fromisoformat(data["last"]), language)
    turn = -data["days"] if data["kind"] == "back" else data["days"]
    return _WEEKDAYS[language][(data["weekday"] + turn) % 7]


def _leap_line(year: int, language: Language) -> str:
    if year % 100 == 0:
        return _LEAP[language][3 if year % 400 == 0 else 2].format(year=year)
    return _LEAP[language][1 if year % 4 == 0 else 0].format(year=year)


def _month(month: int, language: Language) -> str:
    return f"{month}月" if language == "zh" else _MONTHS[month - 1]


def _count_between(first: date, last: date, language: Language) -> list[str]:
    """What is left of the first month, whole months, and the days of the last."""
    if first.month == last.month:
        return [f"{last.day}-{first.day}={last.day - first.day}"]
    colon = "：" if language == "zh" else ": "
    length = calendar.monthrange(first.year, first.month)[1]
    total = length - first.day
    lines = [f"{_month(first.month, language)}{colon}{length}-{first.day}={total}"]
    for month in range(first.month + 1, last.month + 1):
        more = last.day if month == last.month else calendar.monthrange(first.year, month)[1]
        lines.append(f"{_month(month, language)}{colon}{total}+{more}={total + more}")
        total += more
    return lines


def _count_after(first: date, last: date, language: Language) -> list[str]:
    """Days used up month by month until the rest fits."""
    days = (last - first).days
    if first.month == last.month:
        return [f"{first.day}+{days}={last.day}"]
    colon = "：" if language == "zh" else ": "
    length = calendar.monthrange(first.year, first.month)[1]
    used = length - first.day
    lines = [f"{_month(first.month, language)}{colon}{length}-{first.day}={used}"]
    rest = days - used
    lines.append(f"{_month(first.month + 1, language)}{colon}{days}-{used}={rest}")
    for month in range(first.month + 1, last.month):
        length = calendar.monthrange(first.year, month)[1]
        lines.append(f"{_month(month + 1, language)}{colon}{rest}-{length}={rest - length}")
        rest -= length
    return lines


def _count_weekdays(data: Mapping[str, Any], language: Language) -> list[str]:
    """Whole weeks set aside, then day by day."""
    weeks, rest = divmod(data["days"], 7)
    names, start = _WEEKDAYS[language], data["weekday"]
    turn = -1 if data["kind"] == "back" else 1
    walk = [names[(start + turn * step) % 7] for step in range(rest + 1)]
    lines = [f"{data['days']}-7*{weeks}={rest}"] if weeks else []
    return [*lines, ("，" if language == "zh" else ", ").join(walk)]


def _with_slip(line: str, language: Language, rng: random.Random) -> str:
    """The last line with its value first written wrong; a walk through the week stays as it is."""
    before, equals, value = line.rpartition("=")
    if not equals:
        return line
    good = int(value)
    return corrected(f"{before}=", near_value(good, rng), good, language, rng)
