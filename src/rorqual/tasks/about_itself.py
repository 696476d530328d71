"""About itself: who is asked, and requests that are beyond a small model.

Not knowledge but manners, learnt like any other family: the model gives its name when asked for
it, and declines what it cannot do in one sentence that says what it can. There is no box: the
reply is what a person reads. The score looks for the sentence that matters in a short reply in the
language of the question; a bare refusal earns nothing.
"""

import random
from typing import ClassVar

from rorqual.tasks.answers import split_reasoning
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

_MOST_CHARACTERS = 300
_PLAIN = 0.5  # share of the questions about itself without greeting and ending
_GREETINGS = {
    "en": (
        "",
        "Hi! ",
        "Hello. ",
        "Hey, ",
        "Good morning. ",
        "Sorry to ask: ",
        "Tell me: ",
        "Excuse me. ",
        "Good evening. ",
        "Well then: ",
        "One question: ",
        "Dear model, ",
    ),
    "zh": (
        "",
        "你好！",
        "您好，",
        "嗨，",
        "早上好。",
        "请问，",
        "告诉我：",
        "打扰一下，",
        "晚上好。",
        "那么，",
        "问个问题：",
        "亲爱的模型，",
    ),
}
_WHO = {
    "en": (
        "Who are you?",
        "What is your name?",
        "What are you called?",
        "Who am I talking to?",
        "What kind of model are you?",
        "Who made you?",
        "Are you ChatGPT?",
        "Are you a person?",
        "Can you introduce yourself?",
        "Which model is this?",
        "Who is answering me?",
        "Do you have a name?",
        "Are you DeepSeek?",
        "Where do you come from?",
        "What are you?",
        "Say who you are.",
        "Hello!",
        "Hi there!",
        "Nice to meet you.",
        "What can you do?",
        "hello",
        "hi",
        "hey",
        "Thanks!",
        "thank you",
        "who are you",
        "what is your name",
        "help",
    ),
    "zh": (
        "你是谁？",
        "你叫什么名字？",
        "怎么称呼你？",
        "我在跟谁说话？",
        "你是什么模型？",
        "谁开发了你？",
        "你是ChatGPT吗？",
        "你是真人吗？",
        "能介绍一下你自己吗？",
        "这是哪个模型？",
        "谁在回答我？",
        "你有名字吗？",
        "你是DeepSeek吗？",
        "你从哪里来？",
        "你是什么？",
        "说说你是谁。",
        "你好！",
        "嗨！",
        "很高兴认识你。",
        "你会做什么？",
        "你好",
        "您好",
        "嗨",
        "谢谢！",
        "谢谢",
        "你是谁",
        "你叫什么",
        "帮助",
    ),
}
_ENDINGS = {
    "en": ("", " Please.", " Thanks!", " I am curious.", " Be brief."),
    "zh": ("", "谢谢。", "麻烦了。", "我很好奇。", "简短些。"),
}
# What the score looks for, and how the worked replies go on.
_NAME: dict[Language, str] = {"en": "I am Rorqual", "zh": "我是Rorqual"}
_ABOUT = {
    "en": ", a small open model that anyone can train again.",
    "zh": "，一个谁都能重新训练的开放小模型。",
}
_DECLINES: dict[Language, str] = {"en": "That is beyond me", "zh": "这超出了我的能力"}
_WHY = {
    "en": ": I am too small for it. A larger model may know: rorqual chat smollm2.",
    "zh": "：我太小了。大一些的模型也许知道：rorqual chat smollm2。",
}
_CAN = {
    "en": "I can do arithmetic, short puzzles and small programs.",
    "zh": "我会做算术、解短谜题、写小程序。",
}
_REQUESTS = {
    "en": (
        "Explain {topic}.",
        "Write a poem about {topic}.",
        "What do you think of {topic}?",
        "Write an essay on {topic}.",
        "Give me the latest news about {topic}.",
        "Tell me a story about {topic}.",
        "Teach me all about {topic}.",
        "How does one get started with {topic}?",
        "Translate a text about {topic} into French.",
        "What is the history of {topic}?",
        "What is the capital of {topic}?",
        "Who is {topic}?",
        "What is {topic}?",
        "Write me an essay on {topic}.",
        "Who invented {topic}?",
        "Where can I find {topic}?",
        "Recommend a book about {topic}.",
        "Why does {topic} matter?",
        "Can you help me with {topic}?",
        "Summarize {topic} for me.",
        "When did {topic} begin?",
        "tell me about {topic}",
        "Is {topic} good for me?",
        "Draw me a picture of {topic}.",
        "Which {topic} is the best?",
        "I want to talk about {topic}.",
    ),
    "zh": (
        "解释一下{topic}。",
        "写一首关于{topic}的诗。",
        "你怎么看{topic}？",
        "写一篇关于{topic}的文章。",
        "{topic}有什么最新消息？",
        "讲一个关于{topic}的故事。",
        "教我{topic}的全部知识。",
        "怎样开始学{topic}？",
        "把一段关于{topic}的文字翻译成法语。",
        "{topic}的历史是怎样的？",
        "{topic}的首都是哪里？",
        "{topic}是谁？",
        "{topic}是什么？",
        "给我写一篇关于{topic}的短文。",
        "{topic}是谁发明的？",
        "哪里能找到{topic}？",
        "推荐一本关于{topic}的书。",
        "{topic}为什么重要？",
        "你能帮我弄懂{topic}吗？",
        "总结一下{topic}。",
        "{topic}是什么时候开始的？",
        "说说{topic}",
        "{topic}对我有好处吗？",
        "给我画一张{topic}的画。",
        "哪种{topic}最好？",
        "我想聊聊{topic}。",
    ),
}
_TOPICS: tuple[tuple[str, str], ...] = (
    ("quantum physics", "量子物理"),
    ("the stock market", "股票市场"),
    ("medicine", "医学"),
    ("law", "法律"),
    ("the weather", "天气"),
    ("football", "足球"),
    ("cooking", "烹饪"),
    ("philosophy", "哲学"),
    ("black holes", "黑洞"),
    ("Roman history", "罗马史"),
    ("climate change", "气候变化"),
    ("music", "音乐"),
    ("painting", "绘画"),
    ("travel", "旅行"),
    ("love", "爱情"),
    ("the moon", "月亮"),
    ("tea", "茶"),
    ("whales", "鲸鱼"),
    ("chess", "国际象棋"),
    ("gardening", "园艺"),
    ("space travel", "航天"),
    ("operating systems", "操作系统"),
    ("chemistry", "化学"),
    ("politics", "政治"),
    ("poetry", "诗歌"),
    ("films", "电影"),
    ("dreams", "梦"),
    ("the sea", "大海"),
    ("bridges", "桥梁"),
    ("bread", "面包"),
    ("the economy", "经济"),
    ("sleep", "睡眠"),
    ("dinosaurs", "恐龙"),
    ("robots", "机器人"),
    ("mountains", "山"),
    ("vaccines", "疫苗"),
    ("taxes", "税收"),
    ("compilers", "编译器"),
    ("number theory", "数论"),
    ("fashion", "时装"),
    ("France", "法国"),
    ("Japan", "日本"),
    ("China", "中国"),
    ("Germany", "德国"),
    ("Brazil", "巴西"),
    ("Egypt", "埃及"),
    ("Paris", "巴黎"),
    ("Beijing", "北京"),
    ("Einstein", "爱因斯坦"),
    ("Newton", "牛顿"),
    ("Shakespeare", "莎士比亚"),
    ("Li Bai", "李白"),
    ("the president", "总统"),
    ("the internet", "互联网"),
    ("electricity", "电"),
    ("my health", "我的健康"),
    ("my homework", "我的作业"),
    ("cats", "猫"),
    ("cars", "汽车"),
    ("the Great Wall", "长城"),
)


class AboutItself(Task):
    """Levels: who it is; open requests that are beyond it."""

    name: ClassVar[str] = "about_itself"
    num_levels: ClassVar[int] = 2

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        spoken = draw_language(rng, language)
        if level == 1:
            places = [rng.randrange(len(part["en"])) for part in (_GREETINGS, _WHO, _ENDINGS)]
            if rng.random() < _PLAIN:
                places[0] = places[2] = 0  # most people say no more than that
            greeting, who, ending = places
            prompt = _GREETINGS[spoken][greeting] + _WHO[spoken][who] + _ENDINGS[spoken][ending]
        else:
            places = [rng.randrange(len(part)) for part in (_REQUESTS["en"], _TOPICS)]
            request, topic = places
            subject = _TOPICS[topic][0 if spoken == "en" else 1]
            prompt = _REQUESTS[spoken][request].format(topic=subject)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=prompt,
            answer="",
            key=f"{level} {places}",
            data={},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language = problem.language
        gap = "" if language == "zh" else " "
        if problem.level == 1:
            thinking = {"en": "They ask who I am.", "zh": "问的是我是谁。"}[language]
            parts = [_NAME[language] + _ABOUT[language], _CAN[language]][: rng.randint(1, 2)]
            return Solution(thinking, gap.join(parts))
        thinking = {"en": "I never learnt this.", "zh": "这个我没学过。"}[language]
        return Solution(thinking, _DECLINES[language] + _WHY[language] + gap + _CAN[language])

    def score(self, problem: Problem, completion: str) -> Score:
        """Right if a short reply says, in the language asked in, what matters and not the other."""
        _, content = split_reasoning(completion)
        if content is None:
            return wrong("thinking never ends")
        if len(content) > _MOST_CHARACTERS:
            return wrong("too long")
        right, other = (_NAME, _DECLINES) if problem.level == 1 else (_DECLINES, _NAME)
        if right[problem.language] not in content:
            return wrong("wrong answer")
        return wrong("says both") if other[problem.language] in content else RIGHT
