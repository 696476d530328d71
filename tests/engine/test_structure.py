"""Structures: exactly the right tokens, any vocabulary, hostile wishes refused."""

import json
import random
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.engine.structure import Structure
from rorqual.engine.structure_compiler import MAX_CACHED, StructureCompiler, StructureState
from rorqual.engine.tool_calls import parse_tool_calls
from rorqual.errors import CapacityError, RequestError
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.files import TokenizerFiles
from tests.engine.tokenizers import published, small_tokenizer

PADDED_VOCAB = 1_024
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        "kind": {"enum": ["雨", "sun", None]},
    },
    "required": ["city", "days", "kind"],
    "additionalProperties": False,
}


def compiler_of(tokenizer: Tokenizer, vocab_size: int, **options: float) -> StructureCompiler:
    ends = [tokenizer.eos_token_id]
    return StructureCompiler(tokenizer, vocab_size=vocab_size, eos_token_ids=ends, **options)


@pytest.fixture(scope="module")
def compiler() -> StructureCompiler:
    return compiler_of(small_tokenizer(), PADDED_VOCAB)


def allowed_ids(state: StructureState) -> set[int]:
    bits = state.allowed()
    assert bits is not None and bits.dtype == np.uint32
    return set(np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist())


def walk(state: StructureState, tokenizer: Tokenizer, seed: int, num_tokens: int = 400) -> str:
    """Text of random allowed tokens, until the structure is complete."""
    rng, ids = random.Random(seed), list[int]()
    end = tokenizer.eos_token_id
    while len(ids) < num_tokens and not state.finished:
        allowed = allowed_ids(state)
        assert not (allowed - {end}) & set(tokenizer.special_tokens.values())
        token_id = rng.choice(sorted(allowed))
        state.advance(token_id)
        assert state.failed is None
        if token_id == end:
            break
        ids.append(token_id)
    return tokenizer.decode(ids)


@settings(deadline=None, max_examples=30)
@given(
    options=st.lists(
        st.text(alphabet='ab北🐋"\\\n\x7f<', min_size=1, max_size=4), min_size=1, max_size=4
    ),
    seed=st.integers(0, 99),
)
def test_a_choice_allows_exactly_the_tokens_that_lead_to_an_option(
    compiler: StructureCompiler, options: list[str], seed: int
):
    """Where only one text can follow, its own tokenization is all that is left."""
    tokenizer, rng = small_tokenizer(), random.Random(seed)
    end, special = tokenizer.eos_token_id, set(tokenizer.special_tokens.values())
    texts = {option.encode() for option in options}
    table = {i: bytes_of(tokenizer, i) for i in range(tokenizer.vocab_size) if i not in special}
    state, written, token_id = compiler.state(Structure.choice(options)), b"", -1
    while token_id != end:
        expected = {
            i for i, b in table.items() if any(text.startswith(written + b) for text in texts)
        }
        if written in texts:
            expected.add(end)
        allowed = allowed_ids(state)
        assert allowed == expected or (len(allowed) == 1 and allowed < expected)
        assert state.complete == (written in texts)
        assert state.finished == (expected == {end})
        token_id = rng.choice(sorted(allowed))
        state.advance(token_id)
        written += table.get(token_id, b"")
    assert written in texts


def bytes_of(tokenizer: Tokenizer, token_id: int) -> bytes:
    return tokenizer.token_bytes[token_id]


@pytest.mark.parametrize("seed", range(5))
def test_random_tokens_under_a_schema_make_json_of_the_schema(
    compiler: StructureCompiler, seed: int
):
    state = compiler.state(Structure.json_schema(SCHEMA))
    value = json.loads(walk(state, small_tokenizer(), seed))
    assert list(value) == ["city", "days", "kind"]
    assert len(value["city"]) <= 6
    assert all(isinstance(day, int) for day in value["days"]) and len(value["days"]) <= 2
    assert value["kind"] in ("雨", "sun", None)


def test_random_tokens_under_a_pattern_match_it(compiler: StructureCompiler):
    pattern = r"(ab|[0-9]{2,4}) 北?[^a-y]{1,3}"
    for seed in range(5):
        text = walk(compiler.state(Structure.regex(pattern)), small_tokenizer(), seed)
        assert re.fullmatch(pattern, text)


def test_random_tokens_under_a_grammar_derive_from_it(compiler: StructureCompiler):
    lark = 'start: term ("+" term)~0..3\nterm: NUMBER | "(" start ")"\nNUMBER: /[0-9]{1,3}/'
    for seed in range(5):
        text = walk(compiler.state(Structure.grammar(lark)), small_tokenizer(), seed, 2_000)
        assert re.fullmatch(r"[0-9+()]*", text)
        assert text.count("(") >= text.count(")")


def test_an_object_takes_any_json_object_and_nothing_else(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    text = '{\n  "a": [1.5e3, null, {"b": "北京 \\n🐋"}]\n}'
    state = compiler.state(Structure.json_object())
    ids = tokenizer.encode(text)
    assert state.num_allowed(ids) == len(ids)
    for token_id in ids:
        assert not state.finished
        state.advance(token_id)
    assert state.finished
    assert allowed_ids(state) == {tokenizer.eos_token_id}
    assert compiler.state(Structure.json_object()).num_allowed(tokenizer.encode("[1]")) == 0


def test_runs_of_white_space_are_bounded(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    state = compiler.state(Structure.json_object())
    state.advance(tokenizer.encode("{")[0])
    (space,) = tokenizer.encode(" ")
    for _ in range(200):
        if space not in allowed_ids(state):
            break
        state.advance(space)
    else:
        pytest.fail("a model could write spaces for ever")
    assert state.failed is None


TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"name": "now", "parameters": {"type": "object", "additionalProperties": False}},
]


@pytest.mark.parametrize("name", [None, "weather"])
def test_random_tokens_under_a_required_tool_call_parse_as_calls(
    compiler: StructureCompiler, name: str | None
):
    structure = Structure.tool_calls(TOOLS, name=name)
    end = small_tokenizer().eos_token_id
    for seed in range(3):
        state, rng, ids = compiler.state(structure), random.Random(seed), list[int]()
        while not state.finished and len(ids) < 1_000:
            ids.append(rng.choice(sorted(allowed_ids(state) - {end})))
            state.advance(ids[-1])
        assert state.finished and state.failed is None
        content, calls = parse_tool_calls(small_tokenizer().decode(ids))
        assert content == "" and calls
        for call in calls:
            assert call.name in ({"weather", "now"} if name is None else {name})
            value = json.loads(call.arguments)
            assert call.name == "now" or list(value) == list(SCHEMA["required"])


def test_a_single_tool_call_is_the_only_one(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    one = compiler.state(Structure.tool_calls([{"name": "now"}], parallel=False))
    text = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
    for token_id in tokenizer.encode_with_special(text + "<｜tool▁call▁end｜>"):
        one.advance(token_id)
    assert one.failed is None
    assert allowed_ids(one) == {tokenizer.special_tokens["<｜tool▁calls▁end｜>"]}


def test_a_tool_that_is_not_there_cannot_be_required():
    with pytest.raises(RequestError, match="none of the tools") as caught:
        Structure.tool_calls(TOOLS, name="fly")
    assert caught.value.param == "tool_choice"


def test_a_model_without_call_markers_cannot_be_made_to_call(tmp_path: Path):
    small_tokenizer().save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    config = {"eos_token": "<｜end▁of▁sentence｜>"}
    unmarked = Tokenizer(TokenizerFiles(text.replace("tool▁sep", "unused"), config, "test"))
    with pytest.raises(RequestError, match="lacks the markers") as caught:
        compiler_of(unmarked, PADDED_VOCAB).state(Structure.tool_calls(TOOLS))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")


def test_a_published_vocabulary_and_a_padded_head():
    tokenizer = published("deepseek_v3")
    compiler = compiler_of(tokenizer, 129_280)
    state = compiler.state(Structure.json_schema(SCHEMA))
    assert state.allowed() is not None and len(state.allowed()) == 129_280 // 32
    json.loads(walk(state, tokenizer, seed=0))


def test_a_head_narrower_than_the_vocabulary():
    tokenizer = small_tokenizer()
    state = compiler_of(tokenizer, 300).state(Structure.regex(".*"))
    assert max(allowed_ids(state)) < 300
    assert len(state.allowed()) == 10


def test_while_the_model_thinks_everything_is_allowed(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    state = compiler.state(Structure.choice(["yes", "no"]), active=False)
    for token_id in tokenizer.encode_with_special("Let me think.</think>"):
        assert state.allowed() is None
        state.advance(token_id)
    assert not state.finished and not state.complete
    state.activate()
    assert walk(state, tokenizer, seed=0) in ("yes", "no")


def test_a_forbidden_token_fails_the_state_and_then_only_the_end_is_allowed(
    compiler: StructureCompiler,
):
    tokenizer = small_tokenizer()
    state = compiler.state(Structure.choice(["yes"]))
    state.advance(tokenizer.encode("q")[0])
    assert state.failed is not None and "\n" not in state.failed
    assert not state.complete and state.finished
    assert allowed_ids(state) == {tokenizer.eos_token_id}


def test_a_rejected_draft_is_taken_back(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    state = compiler.state(Structure.choice(["yes, 北京", "yes, 上海"]))
    first, draft = tokenizer.encode("yes"), tokenizer.encode(", 北京")
    for token_id in first:
        state.advance(token_id)
    before = allowed_ids(state)
    for token_id in draft:
        state.advance(token_id)
    assert state.finished
    state.rollback(len(draft))
    assert not state.finished and allowed_ids(state) == before
    assert state.num_allowed([*draft, 5]) == len(draft)


def test_states_of_one_structure_do_not_touch_each_other(compiler: StructureCompiler):
    tokenizer = small_tokenizer()
    structure = Structure.choice(["yes", "no"])
    one, other = compiler.state(structure), compiler.state(structure)
    one.advance(tokenizer.encode("n")[0])
    assert tokenizer.encode("y")[0] in allowed_ids(other)
    assert tokenizer.encode("y")[0] not in allowed_ids(one)


def nested(depth: int) -> dict:
    schema: dict = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "make",
    [
        lambda: Structure.json_schema(nested(5_000)),
        lambda: Structure.json_schema({"enum": ["x" * 100] * 1_000}),
        lambda: Structure.json_schema({"properties": {f"p{i}": {} for i in range(5_000)}}),
        lambda: Structure.json_schema({"type": "integer", "multipleOf": 99_999_989}),
        lambda: Structure.json_schema({"type": "number", "multipleOf": 0.1234567}),
        lambda: Structure.json_schema({"items": [{"anyOf": [{"multipleOf": 10_007.0}]}]}),
        lambda: Structure.json_schema({"const": object()}),
        lambda: Structure.json_schema({"const": float("nan")}),
        lambda: Structure.json_schema([]),  # type: ignore[arg-type]
        lambda: Structure.regex("a" * 10_000),
        lambda: Structure.regex(""),
        lambda: Structure.choice([]),
        lambda: Structure.choice(["a", ""]),
        lambda: Structure.choice("yes"),
        lambda: Structure.choice([1]),  # type: ignore[list-item]
        lambda: Structure.choice(["a"] * 5_000),
        lambda: Structure.choice(["a" * 50_000, "b" * 50_000]),
        lambda: Structure.grammar('start: %json {"type": "integer", "multipleOf": 99999989}'),
        lambda: Structure.grammar("%llguidance {}\nstart: /a/"),
        lambda: Structure.grammar("x" * 40_000),
        lambda: Structure.tool_calls([{"name": "a b"}]),
        lambda: Structure.tool_calls([{"name": "a"}] * 200),
        lambda: Structure.tool_calls([{"name": "a", "parameters": nested(5_000)}]),
    ],
)
def test_a_hostile_wish_is_refused_when_it_is_made(make):
    with pytest.raises(RequestError) as caught:
        make()
    assert caught.value.code == "invalid_structure"
    assert caught.value.param in ("json_schema", "regex", "choice", "grammar", "tool_choice")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "structure",
    [
        Structure.json_schema({"type": "fish"}),
        Structure.json_schema({"$ref": "http://127.0.0.1:9/schema"}),
        Structure.json_schema({"$ref": "file:///etc/passwd"}),
        Structure.json_schema({"$ref": "#/nowhere"}),
        Structure.json_schema({"type": "array", "uniqueItems": True}),
        Structure.json_schema({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        Structure.json_schema({"const": "\ud800"}),
        Structure.regex("(unclosed"),
        Structure.regex("(?=ahead)a"),
        Structure.regex("(" * 4_000 + ")" * 4_000),
        Structure.grammar("no rule"),
        Structure.grammar('start: "\ud800"'),
        Structure.grammar("start: " + "(" * 10_000 + '"a"' + ")" * 10_000),
        Structure.grammar("start: A\nA: /.*a.{25}/ & /.*b.{27}.*/ & /.*c.{29}.*/ & /.*d.{31}.*/"),
    ],
)
def test_a_structure_that_does_not_compile_names_its_field(
    compiler: StructureCompiler, structure: Structure
):
    with pytest.raises(RequestError) as caught:
        compiler.state(structure)
    assert caught.value.param == structure.param
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "structure",
    [
        Structure.regex("(((a{1,100}){1,100}){1,100}){1,100}"),
        Structure.regex("(a|aa|aaa|b.*c){1,1000}.*(x.{500}y)"),
        Structure.regex(".*a.{3000}"),
        Structure.grammar('start: x\nx: x x | x x x | "a" | ""'),
        Structure.grammar('start: ("a"{1,1000}){1,1000}'),
        Structure.json_schema({"type": "string", "pattern": "^(a+)+$"}),
        Structure.json_schema({"type": "array", "minItems": 10**6, "items": {"type": "integer"}}),
        Structure.json_schema({"type": "string", "minLength": 10**6, "maxLength": 10**9}),
    ],
)
def test_a_greedy_structure_works_or_fails_within_its_limits(
    compiler: StructureCompiler, structure: Structure
):
    """Each step is bounded; a state that hits a limit says so and lets the sequence end."""
    state = compiler.state(structure)
    slowest, rng = 0.0, random.Random(0)
    for _ in range(40):
        start = time.thread_time()
        choices = sorted(allowed_ids(state) - {small_tokenizer().eos_token_id})
        if not choices or state.finished:
            break
        state.advance(rng.choice(choices))
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < 1.0
    assert state.failed is None or allowed_ids(state) == {small_tokenizer().eos_token_id}


def test_equal_structures_are_compiled_once_and_the_oldest_forgotten():
    compiler = compiler_of(small_tokenizer(), PADDED_VOCAB)
    first = compiler.submit(Structure.choice(["a"])).result()
    assert compiler.submit(Structure.choice(["a"], param="other")).result() is first
    assert compiler.submit(Structure.regex("a")).result() is not first
    for number in range(MAX_CACHED):
        compiler.state(Structure.choice([f"b{number}"]))
    assert compiler.submit(Structure.choice(["a"])).result() is not first


def test_a_slow_compilation_is_given_up_and_a_third_is_refused(monkeypatch: pytest.MonkeyPatch):
    compiler = compiler_of(small_tokenizer(), PADDED_VOCAB, compile_seconds=0.05)
    release = threading.Event()
    compile_now = compiler._compile

    def slowly(*arguments):
        release.wait(30)
        return compile_now(*arguments)

    monkeypatch.setattr(compiler, "_compile", slowly)
    with pytest.raises(RequestError, match="not compiled within") as caught:
        compiler.state(Structure.regex("a"))
    assert (caught.value.code, caught.value.param) == ("structure_too_complex", "regex")
    again = compiler.submit(Structure.regex("a"))
    waiting = compiler.submit(Structure.regex("b"))
    with pytest.raises(CapacityError, match="being compiled"):
        compiler.submit(Structure.regex("c"))
    release.set()
    again.result(30)
    waiting.result(30)
    compiler.submit(Structure.regex("c")).result(30)
