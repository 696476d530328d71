"""The report's words, in English and in Chinese. Every text is a pair (English, Chinese)."""

import html
import re
from typing import Any

from rorqual.units import format_bytes

Words = tuple[str, str]

# In charts. Family names and pass@k are the same in both languages.
LABELS = {
    "step": "步",
    "share solved": "答对的比例",
    "tokens per answer": "每个回答的词元数",
    "share that think": "先思考的比例",
    "all wrong": "全错",
    "mixed": "有对有错",
    "all right": "全对",
    "share of groups": "各类组的比例",
    "entropy": "熵",
    "gradient norm": "梯度范数",
    "largest gap": "最大差距",
    "writing": "作答",
    "checking": "评分",
    "learning": "学习",
    "seconds per step": "每步秒数",
    "level": "难度",
    "reward paid": "得到的奖励",
    "answers that are right": "答对的比例",
    "mean of a step": "每步的平均",
}

TITLES: dict[str, Words] = {
    "pass": ("Problems it never trained on", "没有训练过的题目"),
    "length": ("Length and thinking", "长度与思考"),
    "groups": ("What there is to learn from", "能学到东西的组"),
    "health": ("Signs of health", "健康指标"),
    "time": ("Where the time goes", "时间花在哪里"),
    "level": ("Difficulty", "难度"),
    "reward": ("What is paid and what is wanted", "奖励与目标"),
    "samples": ("The same questions, before and after", "同样的题目，训练前后"),
}

CAPTIONS: dict[str, Words] = {
    "pass": (
        "How many of the held-out problems are answered rightly: pass@1 with one attempt, a higher "
        "number with at least one of that many. The bands are 95 % intervals. A wide space between "
        "the two curves means that the model could answer rightly but seldom does; training "
        "narrows it.",
        "留出的题目中答对的比例：pass@1 只答一次，数字更大的一条表示答那么多次至少对一次。色带是 "
        "95 % 置信区间。两条线相距很远，说明模型有能力答对却很少答对；训练会缩小这个差距。",
    ),
    "length": (
        "How long an answer is, and how many answers think before they answer. Nobody tells the "
        "model to think: where both curves rise together with the share of solved problems, it "
        "found out that thinking pays.",
        "回答有多长，有多少回答先思考再作答。没有人要求模型思考：如果两条线和正确率一起上升，"
        "就是模型自己发现思考有好处。",
    ),
    "groups": (
        "Every question is answered several times. Only groups with right and wrong answers teach "
        "something: where all are wrong there is nothing to imitate, where all are right nothing "
        "is left to learn.",
        "每道题都会回答多次。只有对错都有的组才有用：全错，没有可以模仿的；全对，没有可以再学的。",
    ),
    "health": (
        "Entropy is how much the answers still vary; near 0 the model only repeats itself. The "
        "gradient norm is the force of an update; sudden peaks are a warning. The gap is how far "
        "the sampler and the trainer disagree about one token, and should stay near 0.",
        "熵表示回答还有多少变化，接近 0 时模型只会重复自己。梯度范数是每次更新的力度，突然的尖峰是"
        "警告。差距是采样与训练两边对同一个词元的概率相差多少，应该接近 0。",
    ),
    "time": (
        "A step has three parts: the model writes answers, a program checks them, the model learns "
        "from the result. Writing usually takes longest, one token after the other.",
        "每一步分三段：模型作答，程序评分，模型从结果中学习。作答通常最慢，因为词元要一个接一个地写。",
    ),
    "level": (
        "The difficulty of the questions. It goes up when most answers are right and down when "
        "nearly all are wrong, so that there is always something to learn.",
        "题目的难度。答对的多了就升，几乎全错就降，让模型总有东西可学。",
    ),
    "reward": (
        "The reward is what the model is paid for, which may include good form; right answers are "
        "what is wanted. If the reward rose while right answers became fewer, the model would be "
        "gaming its reward.",
        "奖励是模型得到的分数，可能包括格式分；答对才是真正的目标。如果奖励上升而正确率下降，"
        "说明模型在钻奖励的空子。",
    ),
    "samples": (
        "What the model wrote to the same held-out questions, drawn with the same random numbers, "
        "at the first, the middle and the last evaluation.",
        "模型在第一次、中间一次和最后一次评测中，对同样的留出题目、用同样的随机数写出的回答。",
    ),
}

KINDS: dict[str, Words] = {
    "corpus": ("collect text and worked examples", "准备文本和带解答的例题"),
    "pretrain": ("pretraining: learn to continue text", "预训练：学会续写文本"),
    "rl": ("reinforcement learning: try, get paid for what is right", "强化学习：尝试，答对得分"),
    "sft": ("fine-tuning: imitate chosen answers", "微调：模仿选出的回答"),
    "rejection": ("rejection sampling: keep right answers", "拒绝采样：留下答对的回答"),
    "distill": ("distillation: a small model learns from a large one", "蒸馏：小模型向大模型学习"),
    "eval": ("evaluation on held-out problems", "用留出的题目评测"),
}

# The doctor says what it found in English, with figures; in Chinese by kind.
FINDINGS_ZH: dict[str, str] = {
    "collapse": "正确率比最好时掉了一半以上：策略已经崩溃。最好的检查点已保留，"
    "请降低学习率再从它开始。",
    "solved": "大多数组全对，这个难度已经学会：提高难度，或者停止。",
    "too_hard": "大多数组全错，没有可学的：降低难度，先加例题，或增大 num_generations。",
    "truncated": "很多回答写到长度上限还没有结束，得不到分：增大 max_completion_length，"
    "或让基座学会结束。",
    "no_answer": "很多回答没有给出 \\boxed{} 答案：在基座数据里展示格式，或先做一次简短的微调。",
    "format_hacking": "格式分上升而正确率下降：降低格式奖励的权重，或只在答对时给格式分。",
    "entropy_collapse": "熵已经很低而正确率不高：模型在重复自己。降低学习率或提高 epsilon_high。",
    "logp_gap": "采样与训练的概率不一致：两边使用同样的数据类型，检查权重同步和路由。",
    "trace_ignored": "先思考的回答并不比直接回答更准，奖励没有给出思考的理由：预计思考会变少；"
    "请用直接回答会失败的难度。",
}

VERDICTS_ZH = {"learnable": "可以学", "too hard": "太难", "solved": "已经会了"}


SWITCH_STYLE = """
:root:has(#zh:checked) .en,:root:not(:has(#zh:checked)) .zh{display:none}
.languages{float:right;font-size:.9rem}.languages label{margin-left:.8rem;cursor:pointer}
"""
SWITCH = (
    "<div class=languages><label><input type=radio name=language id=en checked> English</label>"
    "<label><input type=radio name=language id=zh> 中文</label></div>"
    "<script>if(navigator.language.startsWith('zh'))document.getElementById('zh').checked=true"
    "</script>"
)


def stage_note(kind: str, facts: dict[str, Any]) -> Words:
    """How a stage ended, in a sentence."""
    if kind == "corpus":
        share, text = f"{facts['thinking'] / facts['examples']:.0%}", facts["text_bytes"]
        return (
            f"{facts['examples']:,} worked examples, {share} of them think"
            + (f"; {format_bytes(text)} of text" if text else ""),
            f"{facts['examples']:,} 道例题，其中 {share} 先思考"
            + (f"；文本 {format_bytes(text)}" if text else ""),
        )
    if kind in ("pretrain", "sft"):
        return (
            f"{facts['tokens']:,} tokens in {facts['steps']:,} steps",
            f"{facts['steps']:,} 步，{facts['tokens']:,} 个词元",
        )
    if kind in ("rl", "distill"):
        score = facts["pass@1"]
        best = "-" if score is None else f"{score:.1%}"
        ended = facts["ended_by"]
        return (
            f"held-out pass@1 {best} at best; ended by {ended} at step {facts['steps']:,}",
            f"留出题目 pass@1 最高 {best}；第 {facts['steps']:,} 步结束"
            f"（{_ENDINGS.get(ended, ended)}）",
        )
    if kind == "rejection":
        return (
            f"{facts['kept']:,} traces; {facts['right']:,} of {facts['asked']:,} answers right",
            f"留下 {facts['kept']:,} 条；{facts['asked']:,} 个回答中 {facts['right']:,} 个正确",
        )
    scores = ", ".join(f"{name} {score:.0%}" for name, score in facts["pass@1"].items())
    return f"pass@1: {scores}", f"pass@1：{scores}"


_ENDINGS = {
    "done": "步数已到",
    "time budget": "时间已到",
    "collapse": "崩溃",
    "nothing to learn": "没有可学的",
}


def both(words: Words, tag: str = "span") -> str:
    """Plain text in both languages, of which the page shows one."""
    english, chinese = (html.escape(text, quote=False) for text in words)
    return (
        f'<{tag} class="en">{english}</{tag}><{tag} class="zh" lang="zh">{chinese}</{tag}>'
        if english != chinese
        else f"<{tag}>{english}</{tag}>"
    )


def in_both_languages(svg: str) -> str:
    """A chart whose labels and title change with the page's language."""
    known = LABELS | dict(TITLES.values())

    def label(match: re.Match[str]) -> str:
        english = html.unescape(match[1])
        return f">{both((english, known.get(english, english)), 'tspan')}</text>"

    return re.sub(r">([^<>]+)</text>", label, svg)
