"""The functions that `python_function` asks for: words, a worked body, a reference, and inputs.

A row's texts are templates: {a}, {b}, {c} stand for the argument names of the problem, {k} for its
parameter. The reference gets the parameter first. Inputs come from draw(rng, parameter).
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Parameter = int | str | None
Inputs = list[Any]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = ("sun", "tree", "river", "cat", "stone", "apple", "moon", "bird", "sea", "green", "house")


@dataclass(frozen=True, slots=True)
class FunctionFamily:
    """en and zh complete "a function that ..."; plan_en and plan_zh are the thinking."""

    level: int
    names: tuple[str, ...]
    arguments: tuple[str, ...]  # each a choice of names, "x" or "low high"
    en: str
    zh: str
    plan_en: str
    plan_zh: str
    body: str
    reference: Callable[..., Any]
    draw: Callable[[random.Random, Any], Inputs]
    parameters: tuple[Parameter, ...] = (None,)


def _whole(low: int, high: int, count: int = 1) -> Callable[[random.Random, Any], Inputs]:
    return lambda rng, k: [rng.randint(low, high) for _ in range(count)]


def _numbers(shortest: int, longest: int = 7) -> Callable[[random.Random, Any], Inputs]:
    return lambda rng, k: [[rng.randint(-9, 20) for _ in range(rng.randint(shortest, longest))]]


def _multiples(rng: random.Random, k: Any) -> Inputs:
    """Half of them multiples of the parameter."""
    value = rng.randint(0, 60)
    return [value - value % int(k) if rng.random() < 0.5 else value]


def _text(rng: random.Random, k: Any) -> Inputs:
    """A short word, rich in the letter asked for (or in vowels)."""
    letters = _LETTERS + (str(k) * 8 if k else "aeiou")
    return ["".join(rng.choice(letters) for _ in range(rng.randint(0, 9)))]


def _mirror(rng: random.Random, k: Any) -> Inputs:
    """Half of them palindromes, and the others one letter off or random."""
    half = "".join(rng.choice("abc") for _ in range(rng.randint(1, 4)))
    text = half + half[::-1][rng.randint(0, 1) :]
    return [text if rng.random() < 0.5 else text + rng.choice("abcd")]


def _sentence(rng: random.Random, k: Any) -> Inputs:
    return [" ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 5)))]


def _bounds(rng: random.Random, k: Any) -> Inputs:
    low = rng.randint(-5, 5)
    return [rng.randint(-15, 25), low, low + rng.randint(1, 10)]


def _repeats(rng: random.Random, k: Any) -> Inputs:
    return [[rng.randint(1, 4) for _ in range(rng.randint(2, 7))]]


def _fibonacci(k: Any, n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def _fizz(k: Any, n: int) -> str:
    return ("Fizz" * (n % 3 == 0) + "Buzz" * (n % k == 0)) or str(n)


def _in_base(k: int, n: int) -> str:
    return (_in_base(k, n // k) if n >= k else "") + str(n % k)


def _halvings(k: Any, n: int) -> int:
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


def _running_sums(k: Any, values: list[int]) -> list[int]:
    return [sum(values[: i + 1]) for i in range(len(values))]


def _is_prime(k: Any, n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, n))


_NUMBER, _LIST, _TEXT = ("n", "x", "num"), ("nums", "xs", "values"), ("s", "text", "word")
_PAIR = ("a b", "x y", "m n")

_EASY = (
    FunctionFamily(
        1, ("times", "scale", "multiply"), _NUMBER,
        "returns {a} times {k}", "返回{a}的{k}倍", "multiply {a} by {k}", "{a}乘{k}",
        "return {a} * {k}", lambda k, a: a * k, _whole(-20, 20), tuple(range(2, 13)),
    ),
    FunctionFamily(
        1, ("add", "plus", "increase"), _NUMBER,
        "returns {a} plus {k}", "返回{a}加{k}", "add {k} to {a}", "{a}加{k}",
        "return {a} + {k}", lambda k, a: a + k, _whole(-20, 20), tuple(range(1, 13)),
    ),
    FunctionFamily(
        1, ("power", "raised", "to_power"), _NUMBER,
        "returns {a} to the power {k}", "返回{a}的{k}次方", "{a} ** {k}", "{a} ** {k}",
        "return {a} ** {k}", lambda k, a: a**k, _whole(-6, 9), (2, 3, 4),
    ),
    FunctionFamily(
        1, ("total", "add_two", "sum_of"), _PAIR,
        "returns the sum of {a} and {b}", "返回{a}与{b}的和", "{a} + {b}", "{a} + {b}",
        "return {a} + {b}", lambda k, a, b: a + b, _whole(-30, 30, 2),
    ),
    FunctionFamily(
        1, ("distance", "gap", "difference"), _PAIR,
        "returns the absolute difference of {a} and {b}", "返回{a}与{b}之差的绝对值",
        "the sign must go: abs", "去掉符号：abs",
        "return abs({a} - {b})", lambda k, a, b: abs(a - b), _whole(-30, 30, 2),
    ),
    FunctionFamily(
        1, ("divides", "is_multiple", "check"), _NUMBER,
        "returns True if {a} is divisible by {k}, else False",
        "判断{a}能否被{k}整除，返回True或False",
        "no remainder: {a} % {k} == 0", "余数为0：{a} % {k} == 0",
        "return {a} % {k} == 0", lambda k, a: a % k == 0, _multiples, tuple(range(2, 10)),
    ),
    FunctionFamily(
        1, ("last_digit", "ones", "final_digit"), _NUMBER,
        "returns the last digit of {a} (at least 0)", "返回非负整数{a}的个位数字",
        "the remainder by 10", "除以10的余数",
        "return {a} % 10", lambda k, a: a % 10, _whole(0, 500),
    ),
    FunctionFamily(
        1, ("larger", "bigger", "max_of"), _PAIR,
        "returns the larger of {a} and {b}", "返回{a}和{b}中较大的数", "max", "用max",
        "return max({a}, {b})", lambda k, a, b: max(a, b), _whole(-30, 30, 2),
    ),
    FunctionFamily(
        1, ("smaller", "lesser", "min_of"), _PAIR,
        "returns the smaller of {a} and {b}", "返回{a}和{b}中较小的数", "min", "用min",
        "return min({a}, {b})", lambda k, a, b: min(a, b), _whole(-30, 30, 2),
    ),
    FunctionFamily(
        1, ("perimeter", "border", "outline"), ("a b", "w h", "width height"),
        "returns the perimeter of a rectangle with sides {a} and {b}",
        "返回边长为{a}和{b}的长方形的周长", "twice the sum", "和的两倍",
        "return 2 * ({a} + {b})", lambda k, a, b: 2 * (a + b), _whole(1, 30, 2),
    ),
)  # fmt: skip

_MEDIUM = (
    FunctionFamily(
        2, ("sum_list", "total", "add_all"), _LIST,
        "returns the sum of the list {a}", "返回列表{a}的和",
        "sum adds them, 0 for none", "用sum，空列表得0",
        "return sum({a})", lambda k, a: sum(a), _numbers(0),
    ),
    FunctionFamily(
        2, ("spread", "max_difference", "value_range"), _LIST,
        "returns the largest minus the smallest number of the list {a}",
        "返回列表{a}中最大数减最小数的差", "max minus min", "max减min",
        "return max({a}) - min({a})", lambda k, a: max(a) - min(a), _numbers(1),
    ),
    FunctionFamily(
        2, ("count_above", "how_many", "count_big"), _LIST,
        "returns how many numbers in the list {a} are greater than {k}",
        "返回列表{a}中大于{k}的数的个数", "one for each v > {k}", "每个v > {k}计1",
        "return sum(1 for v in {a} if v > {k})", lambda k, a: sum(v > k for v in a),
        _numbers(0), tuple(range(11)),
    ),
    FunctionFamily(
        2, ("count_vowels", "vowels", "num_vowels"), _TEXT,
        "returns the number of vowels (aeiou) in the lowercase text {a}",
        "返回小写字符串{a}中元音字母(aeiou)的个数", "test each letter", "逐个字母检查",
        'return sum(1 for c in {a} if c in "aeiou")', lambda k, a: sum(c in "aeiou" for c in a),
        _text,
    ),
    FunctionFamily(
        2, ("count_letter", "occurrences", "count_char"), _TEXT,
        'returns how often "{k}" is in the text {a}', "返回字符串{a}中“{k}”出现的次数",
        "count does it", "用count",
        'return {a}.count("{k}")', lambda k, a: a.count(k), _text, tuple("abeklmst"),
    ),
    FunctionFamily(
        2, ("reverse", "backwards", "flip"), _TEXT,
        "returns the text {a} reversed", "返回字符串{a}的倒序", "a slice with step -1",
        "步长为-1的切片", "return {a}[::-1]", lambda k, a: a[::-1], _text,
    ),
    FunctionFamily(
        2, ("is_palindrome", "palindrome", "is_mirror"), _TEXT,
        "returns True if {a} reads the same backwards, else False",
        "判断字符串{a}是否是回文，返回True或False", "compare with the reverse", "与倒序比较",
        "return {a} == {a}[::-1]", lambda k, a: a == a[::-1], _mirror,
    ),
    FunctionFamily(
        2, ("keep_multiples", "multiples", "only_multiples"), _LIST,
        "returns the numbers of the list {a} that are divisible by {k}",
        "返回列表{a}中能被{k}整除的数组成的列表", "keep v if v % {k} == 0", "v % {k} == 0则留下",
        "return [v for v in {a} if v % {k} == 0]",
        lambda k, a: [v for v in a if v % k == 0], _numbers(0), (2, 3, 4, 5),
    ),
    FunctionFamily(
        2, ("scale_all", "times_each", "multiply_all"), _LIST,
        "returns a list with each number of {a} times {k}", "返回列表{a}中每个数乘{k}后的列表",
        "v * {k} for each v", "每个v变成v * {k}",
        "return [v * {k} for v in {a}]", lambda k, a: [v * k for v in a],
        _numbers(0), tuple(range(2, 10)),
    ),
    FunctionFamily(
        2, ("clamp", "limit", "clip"), ("x low high", "n lo hi", "v a b"),
        "returns {a} held between {b} and {c}", "返回限制在{b}到{c}之间的{a}",
        "at least {b}, at most {c}", "不小于{b}，不大于{c}",
        "return max({b}, min({c}, {a}))", lambda k, a, b, c: max(b, min(c, a)), _bounds,
    ),
    FunctionFamily(
        2, ("word_count", "count_words", "num_words"), ("s", "text", "line"),
        "returns the number of words in the text {a}", "返回英文句子{a}中的单词数",
        "split at spaces", "按空格split",
        "return len({a}.split())", lambda k, a: len(a.split()), _sentence,
    ),
)  # fmt: skip

_HARD = (
    FunctionFamily(
        3, ("fizzbuzz", "fizz_word", "fizz"), _NUMBER,
        'returns "Fizz" if {a} is divisible by 3, "Buzz" if by {k}, "FizzBuzz" if by both, else '
        "{a} as text",
        "：{a}能被3整除返回“Fizz”，被{k}整除返回“Buzz”，都能则返回“FizzBuzz”，否则返回{a}的字符串",
        "both first: {a} % 3 and {a} % {k}", "先看两个都整除：{a} % 3和{a} % {k}",
        'if {a} % 3 == 0 and {a} % {k} == 0:\n    return "FizzBuzz"\n'
        'if {a} % 3 == 0:\n    return "Fizz"\nif {a} % {k} == 0:\n    return "Buzz"\n'
        "return str({a})",
        _fizz, lambda rng, k: [rng.choice((3, k, 3 * k, 1)) * rng.randint(1, 9)], (4, 5, 7, 8),
    ),
    FunctionFamily(
        3, ("fibonacci", "fib", "nth_fibonacci"), _NUMBER,
        "returns the Fibonacci number {a}, where 0 gives 0 and 1 gives 1",
        "返回第{a}个斐波那契数，第0个是0，第1个是1", "step the pair 0, 1 {a} times",
        "从0, 1开始走{a}步",
        "p, q = 0, 1\nfor _ in range({a}):\n    p, q = q, p + q\nreturn p",
        _fibonacci, _whole(0, 20),
    ),
    FunctionFamily(
        3, ("reverse_words", "words_backwards", "flip_words"), ("s", "text", "line"),
        "returns the text {a} with its words in reverse order", "返回单词顺序颠倒后的{a}",
        "split, reverse, join", "split，倒序，join",
        'return " ".join({a}.split()[::-1])', lambda k, a: " ".join(a.split()[::-1]), _sentence,
    ),
    FunctionFamily(
        3, ("factorial", "fact", "product_up_to"), _NUMBER,
        "returns the factorial of {a}", "返回{a}的阶乘", "multiply 2 to {a}, start with 1",
        "从1开始乘2到{a}",
        "r = 1\nfor i in range(2, {a} + 1):\n    r *= i\nreturn r",
        lambda k, a: math.factorial(a), _whole(0, 12),
    ),
    FunctionFamily(
        3, ("gcd", "common_divisor", "greatest_divisor"), _PAIR,
        "returns the greatest common divisor of {a} and {b}", "返回{a}和{b}的最大公约数",
        "Euclid: the remainder until it is 0", "辗转相除直到余数为0",
        "while {b}:\n    {a}, {b} = {b}, {a} % {b}\nreturn {a}",
        lambda k, a, b: math.gcd(a, b),
        lambda rng, k: [g * rng.randint(1, 9) for g in [rng.randint(1, 12)] for _ in "ab"],
    ),
    FunctionFamily(
        3, ("digit_sum", "sum_digits", "add_digits"), _NUMBER,
        "returns the sum of the digits of {a} (at least 0)", "返回非负整数{a}的各位数字之和",
        "go through its digits as text", "转成字符串逐位相加",
        "return sum(int(d) for d in str({a}))", lambda k, a: sum(map(int, str(a))),
        _whole(0, 9999),
    ),
    FunctionFamily(
        3, ("is_prime", "prime", "check_prime"), _NUMBER,
        "returns True if {a} is prime, else False", "判断{a}是否是质数，返回True或False",
        "above 1, and no d below {a} divides it", "大于1，且没有更小的d能整除",
        "return {a} > 1 and all({a} % d for d in range(2, {a}))", _is_prime,
        lambda rng, k: [rng.choice((2, 3, 5, 7, 11, 13, 17, 23, 29, rng.randint(0, 40)))],
    ),
    FunctionFamily(
        3, ("biggest_step", "largest_jump", "max_step"), _LIST,
        "returns the largest absolute difference of neighbours in the list {a}",
        "返回列表{a}中相邻两数之差的绝对值的最大值", "pair each with the next", "每个与下一个配对",
        "return max(abs(p - q) for p, q in zip({a}, {a}[1:]))",
        lambda k, a: max(abs(p - q) for p, q in pairwise(a)), _numbers(2),
    ),
    FunctionFamily(
        3, ("running_sums", "prefix_sums", "partial_sums"), _LIST,
        "returns the list of running sums of {a}", "返回列表{a}的前缀和列表",
        "keep the sum so far", "记住到目前为止的和",
        "r, t = [], 0\nfor v in {a}:\n    t += v\n    r.append(t)\nreturn r",
        _running_sums, _numbers(0),
    ),
    FunctionFamily(
        3, ("to_base", "in_base", "convert"), _NUMBER,
        "returns {a} (at least 0) written in base {k}, as text",
        "返回非负整数{a}的{k}进制字符串", "divide by {k} and put each remainder in front",
        "不断除以{k}，余数放到前面",
        'r = ""\nwhile {a} > 0:\n    r = str({a} % {k}) + r\n    {a} = {a} // {k}\n'
        'return r or "0"',
        _in_base, _whole(0, 200), tuple(range(2, 10)),
    ),
    FunctionFamily(
        3, ("count_digit", "digit_count", "how_often"), _NUMBER,
        "returns how often the digit {k} is in {a} (at least 0)",
        "返回非负整数{a}中数字{k}出现的次数", "count in its text", "转成字符串用count",
        'return str({a}).count("{k}")', lambda k, a: str(a).count(str(k)),
        lambda rng, k: [int("".join(rng.choice(f"{k}{k}0123456789") for _ in range(5)))],
        tuple(range(10)),
    ),
    FunctionFamily(
        3, ("unique", "without_repeats", "distinct"), _LIST,
        "returns the list {a} without repeats, in order of first appearance",
        "返回去掉重复元素的列表{a}，保持首次出现的顺序", "take v if it is not in r yet",
        "r里没有v才放入",
        "r = []\nfor v in {a}:\n    if v not in r:\n        r.append(v)\nreturn r",
        lambda k, a: list(dict.fromkeys(a)), _repeats,
    ),
    FunctionFamily(
        3, ("collatz_steps", "steps_to_one", "collatz"), _NUMBER,
        "returns how many steps {a} takes to 1: halve if even, else triple and add 1",
        "返回{a}变成1需要的步数：偶数减半，奇数乘3加1", "count until {a} is 1", "数到{a}为1",
        "t = 0\nwhile {a} != 1:\n    {a} = {a} // 2 if {a} % 2 == 0 else 3 * {a} + 1\n    t += 1\n"
        "return t",
        _halvings, _whole(1, 30),
    ),
)  # fmt: skip

FAMILIES: tuple[FunctionFamily, ...] = _EASY + _MEDIUM + _HARD
