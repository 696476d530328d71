"""The stories behind `word_problems`: what is drawn, what is computed, and how it is told.

A story is data. `values` are drawn evenly, `given` derives more of them (so that divisions come out
even), `steps` compute the answer; a draw with a step outside 1 to 5000, or a broken division, is
drawn again. Numbers are always 2 or more, so plurals hold. Texts may use the values, {name}
{other} {third} (three people), {things} {one} (English plural and singular), {thing} {m} (Chinese
noun and measure word). Labels name each step's result, divided by "|".
"""

from dataclasses import dataclass

from rorqual.tasks.base import Language

PEOPLE: dict[Language, tuple[str, ...]] = {
    "en": ("Ann", "Ben", "Mia", "Leo", "Zoe", "Max", "Sam", "Eva"),
    "zh": ("小明", "小红", "小丽", "小刚", "小美", "小华", "小军", "小兰"),
}
# English plural and singular, Chinese noun and measure word.
THINGS: tuple[tuple[str, str, str, str], ...] = (
    ("apples", "apple", "苹果", "个"),
    ("pears", "pear", "梨", "个"),
    ("books", "book", "书", "本"),
    ("pencils", "pencil", "铅笔", "支"),
    ("stamps", "stamp", "邮票", "张"),
    ("cards", "card", "卡片", "张"),
    ("stickers", "sticker", "贴纸", "张"),
    ("marbles", "marble", "弹珠", "颗"),
    ("sweets", "sweet", "糖", "颗"),
    ("cookies", "cookie", "饼干", "块"),
    ("flowers", "flower", "花", "朵"),
    ("shells", "shell", "贝壳", "个"),
)


@dataclass(frozen=True, slots=True)
class Story:
    """One pattern, in both languages."""

    name: str
    values: dict[str, range]
    steps: str
    en: tuple[str, ...]
    zh: tuple[str, ...]
    en_labels: str = ""
    zh_labels: str = ""
    given: str = ""


_SMALL, _UP_TO_20 = range(2, 16), range(4, 21)
_TABLE, _TABLE_12 = range(2, 10), range(2, 13)

_ONE_STEP = (
    Story(
        "gain",
        {"a": _SMALL, "b": _SMALL},
        "x=a+b",
        (
            "{name} has {a} {things}. {other} brings {b} more. How many {things} are there now?",
            "{name} finds {a} {things} in the morning and {b} in the evening. How many in all?",
        ),
        (
            "{name}有{a}{m}{thing}，{other}又拿来{b}{m}。现在有几{m}？",
            "{name}早上找到{a}{m}{thing}，晚上又找到{b}{m}。一共几{m}？",
        ),
    ),
    Story(
        "give",
        {"a": _UP_TO_20, "b": _SMALL},
        "x=a-b",
        (
            "{name} has {a} {things} and gives {other} {b}. How many are left?",
            "There are {a} {things} in a box. {name} takes out {b}. How many stay in the box?",
        ),
        (
            "{name}有{a}{m}{thing}，给了{other}{b}{m}。还剩几{m}？",
            "盒子里有{a}{m}{thing}，{name}拿走{b}{m}。盒子里还有几{m}？",
        ),
    ),
    Story(
        "more_than",
        {"a": _SMALL, "b": _SMALL},
        "x=a+b",
        (
            "{name} has {a} {things}. {other} has {b} more. How many does {other} have?",
            "{name} is {a} years old. {other} is {b} years older. How old is {other}?",
        ),
        (
            "{name}有{a}{m}{thing}，{other}比{name}多{b}{m}。{other}有几{m}？",
            "{name}{a}岁，{other}比{name}大{b}岁。{other}几岁？",
        ),
    ),
    Story(
        "difference",
        {"a": _UP_TO_20, "b": _SMALL},
        "x=a-b",
        (
            "{name} has {a} {things}, {other} has {b}. How many more does {name} have?",
            "{name} walks {a} km, {other} walks {b} km. How many km more does {name} walk?",
        ),
        (
            "{name}有{a}{m}{thing}，{other}有{b}{m}。{name}比{other}多几{m}？",
            "{name}走了{a}千米，{other}走了{b}千米。{name}多走了几千米？",
        ),
    ),
    Story(
        "together",
        {"a": _SMALL, "b": _SMALL},
        "x=a+b",
        (
            "{name} has {a} {things} and {other} has {b}. How many do they have together?",
            "A class has {a} girls and {b} boys. How many children is that?",
        ),
        (
            "{name}有{a}{m}{thing}，{other}有{b}{m}。两人一共有几{m}？",
            "班里有{a}个女生和{b}个男生。一共有几个学生？",
        ),
    ),
    Story(
        "leave",
        {"a": _UP_TO_20, "b": _SMALL},
        "x=a-b",
        (
            "A bus has {a} people on it. {b} get off. How many stay on?",
            "{a} birds sit in a tree. {b} fly away. How many are left?",
        ),
        (
            "车上有{a}人，下去{b}人。车上还有几人？",
            "树上有{a}只鸟，飞走了{b}只。还剩几只？",
        ),
    ),
)

_TIMES_OR_TWO_STEPS = (
    Story(
        "boxes",
        {"a": _TABLE, "b": _TABLE_12},
        "x=a*b",
        (
            "There are {a} boxes with {b} {things} in each. How many {things} are there?",
            "{name} puts {b} {things} in each of {a} bags. How many {things} is that?",
        ),
        (
            "有{a}个盒子，每盒{b}{m}{thing}。一共有多少{m}？",
            "{name}有{a}个袋子，每袋装{b}{m}{thing}。一共多少{m}？",
        ),
    ),
    Story(
        "price",
        {"a": _TABLE_12, "b": _TABLE},
        "x=a*b",
        (
            "One {one} costs {a} coins. How many coins do {b} {things} cost?",
            "A ticket costs {a} coins. {name} buys {b} tickets. How many coins is that?",
        ),
        (
            "一{m}{thing}{a}元，买{b}{m}要多少元？",
            "一张票{a}元，{name}买了{b}张。一共多少元？",
        ),
    ),
    Story(
        "share",
        {"a": _TABLE, "q": _TABLE_12},
        "x=c/a",
        (
            "{name} shares {c} {things} equally among {a} friends. How many does each get?",
            "{c} children form {a} equal teams. How many are in each team?",
        ),
        (
            "{name}把{c}{m}{thing}平均分给{a}个朋友。每人几{m}？",
            "{c}个孩子平均分成{a}队。每队几人？",
        ),
        given="c=a*q",
    ),
    Story(
        "on_and_off",
        {"a": range(6, 31), "b": _SMALL, "c": _SMALL},
        "x=a-b y=x+c",
        (
            "A bus carries {a} people. {b} get off and {c} get on. How many are on it now?",
            "A shop has {a} {things}. It sells {b} and gets {c} new ones. How many are there now?",
        ),
        (
            "车上有{a}人，下去{b}人，又上来{c}人。现在车上有多少人？",
            "商店有{a}{m}{thing}，卖出{b}{m}，又进了{c}{m}。现在有多少{m}？",
        ),
        "left|now",
        "剩下|现在",
    ),
)

_TWO_STEPS = (
    Story(
        "bags_given_away",
        {"a": _TABLE, "b": _TABLE_12, "c": _UP_TO_20},
        "x=a*b y=x-c",
        (
            "{name} buys {a} bags of {b} {things} and gives away {c}. How many are left?",
            "{a} boxes hold {b} {things} each. {name} takes {c} out. How many are left?",
        ),
        (
            "{name}买了{a}袋{thing}，每袋{b}{m}，送出{c}{m}。还剩多少{m}？",
            "有{a}盒{thing}，每盒{b}{m}。{name}拿走{c}{m}，还剩多少{m}？",
        ),
        "in all|left",
        "一共|还剩",
    ),
    Story(
        "boxes_and_loose",
        {"a": _TABLE, "b": _TABLE_12, "c": _UP_TO_20},
        "x=a*b y=x+c",
        (
            "{name} has {a} boxes of {b} {things} and {c} loose ones. How many {things} in all?",
            "{a} tables seat {b} guests each and {c} guests stand. How many guests are there?",
        ),
        (
            "{name}有{a}盒{thing}，每盒{b}{m}，另外还有{c}{m}。一共多少{m}？",
            "{a}张桌子每张坐{b}位客人，还有{c}位客人站着。一共有多少位客人？",
        ),
        "first|in all",
        "先有|一共",
    ),
    Story(
        "change",
        {"a": _TABLE, "b": _TABLE_12, "c": range(20, 101, 10)},
        "x=a*b y=c-x",
        (
            "{name} buys {a} {things} at {b} coins each and pays with {c} coins. "
            "How many coins come back?",
            "{name} has {c} coins and buys {a} {things} at {b} coins each. "
            "How many coins are left?",
        ),
        (
            "{name}买{a}{m}{thing}，每{m}{b}元，付了{c}元。找回多少元？",
            "{name}有{c}元，买了{a}{m}{thing}，每{m}{b}元。还剩多少元？",
        ),
        "cost|back",
        "花费|找回",
    ),
    Story(
        "share_the_rest",
        {"a": _TABLE, "q": _TABLE, "b": _TABLE_12},
        "x=c-b y=x/a",
        (
            "{name} has {c} {things}, keeps {b} and shares the rest equally among {a} friends. "
            "How many does each get?",
            "Of {c} {things}, {b} are lost. {a} children share the others equally. "
            "How many does each get?",
        ),
        (
            "{name}有{c}{m}{thing}，自己留{b}{m}，其余平均分给{a}个朋友。每人几{m}？",
            "{c}{m}{thing}丢了{b}{m}，剩下的由{a}个孩子平均分。每人几{m}？",
        ),
        "rest|each",
        "其余|每人",
        given="r=a*q c=r+b",
    ),
    Story(
        "pages",
        {"a": _TABLE_12, "b": _TABLE, "c": range(5, 60)},
        "x=a*b y=x+c",
        (
            "{name} reads {a} pages a day. After {b} days {c} pages remain. "
            "How many pages does the book have?",
        ),
        ("{name}每天读{a}页书，读了{b}天，还剩{c}页。这本书有多少页？",),
        "read|in all",
        "读了|一共",
    ),
    Story(
        "saving",
        {"a": range(5, 60), "b": _TABLE_12, "c": _TABLE},
        "x=b*c y=a+x",
        ("{name} has {a} coins and saves {b} a week. How many coins are there after {c} weeks?",),
        ("{name}有{a}元，每周再存{b}元。{c}周后有多少元？",),
        "saved|in all",
        "存下|一共",
    ),
)

_THREE_OR_FOUR_STEPS = (
    Story(
        "legs",
        {"a": range(2, 31), "b": range(2, 31)},
        "x=a*2 y=b*4 z=x+y",
        ("A farm has {a} hens and {b} sheep. How many legs do they have together?",),
        ("农场有{a}只鸡和{b}只羊。它们一共有多少条腿？",),
        "hens|sheep|together",
        "鸡|羊|一共",
    ),
    Story(
        "two_goods",
        {"a": _TABLE, "b": _TABLE, "c": _TABLE, "d": _TABLE_12, "e": range(50, 201, 50)},
        "x=a*b y=c*d z=x+y w=e-z",
        (
            "{name} buys {a} pens at {b} coins each and {c} books at {d} coins each, and pays with "
            "{e} coins. How many coins come back?",
        ),
        ("{name}买了{a}支笔，每支{b}元，又买了{c}本书，每本{d}元，付了{e}元。找回多少元？",),
        "pens|books|cost|back",
        "笔|书|花费|找回",
    ),
    Story(
        "three_people",
        {"a": range(2, 31), "b": _SMALL},
        "x=a+b y=x*2 z=a+x w=z+y",
        (
            "{name} has {a} {things}. {other} has {b} more than {name}. {third} has twice as many "
            "as {other}. How many do the three have together?",
        ),
        (
            "{name}有{a}{m}{thing}，{other}比{name}多{b}{m}，{third}的{thing}是{other}的2倍。"
            "三人一共有多少{m}？",
        ),
        "{other}|{third}|{name} and {other}|together",
        "{other}|{third}|{name}和{other}|一共",
    ),
    Story(
        "journey",
        {"a": range(20, 100, 10), "b": _TABLE, "c": range(20, 100, 10), "d": _TABLE},
        "x=a*b y=c*d z=x+y",
        (
            "A train goes {a} km an hour for {b} hours, then {c} km an hour for {d} hours. "
            "How many km does it go?",
        ),
        ("火车先以每小时{a}千米行驶{b}小时，再以每小时{c}千米行驶{d}小时。一共行驶多少千米？",),
        "first|then|in all",
        "先行驶|再行驶|一共",
    ),
    Story(
        "workshop",
        {"a": range(2, 7), "b": _TABLE, "c": range(2, 7), "d": range(5, 60)},
        "x=a*b y=x*c z=y-d",
        (
            "{a} workers each make {b} toys a day. After {c} days {d} toys are sold. "
            "How many toys are left?",
        ),
        ("{a}个工人每人每天做{b}个玩具，做了{c}天，卖出{d}个。还剩多少个？",),
        "a day|made|left",
        "每天|做了|还剩",
    ),
    Story(
        "brought_and_shared",
        {"a": _TABLE, "b": _TABLE_12, "c": _UP_TO_20, "d": range(2, 7)},
        "x=a*b y=x+c z=y/d",
        (
            "{name} brings {a} boxes of {b} {things}, {other} brings {c} more {things}. "
            "{d} children share them equally. How many does each get?",
        ),
        (
            "{name}带来{a}盒{thing}，每盒{b}{m}，{other}又带来{c}{m}。"
            "{d}个孩子平均分。每人多少{m}？",
        ),
        "in boxes|in all|each",
        "盒里|一共|每人",
    ),
)

STORIES_BY_LEVEL: tuple[tuple[Story, ...], ...] = (
    _ONE_STEP,
    _TIMES_OR_TWO_STEPS,
    _TWO_STEPS,
    _THREE_OR_FOUR_STEPS,
)
STORIES: dict[str, Story] = {story.name: story for level in STORIES_BY_LEVEL for story in level}
