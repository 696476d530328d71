"""`rorqual chat`: what the model is shown, what people see, and what is remembered."""

import io
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rorqual.checkpoint import save_model
from rorqual.cli import chat as chat_command
from rorqual.cli.chat import Display, Piece, Talk
from rorqual.cli.main import main
from rorqual.config.run import load_run_config
from rorqual.errors import RequestError
from rorqual.model import Sampling, Transformer, initialize
from rorqual.tokenizer import Tokenizer, train_tokenizer

BEGIN, END = "<think>", "</think>"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "model"
    model = Transformer(load_run_config("tiny").model)
    initialize(model, 0)
    save_model(model, train_tokenizer(["Who are you? 你是谁？"] * 20, vocab_size=330), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Tokenizer:
    return Tokenizer.load(model_path)


class Script:
    """Stands for the model: writes the given texts, one a reply, and keeps what it was shown."""

    def __init__(
        self, tokenizer: Tokenizer, *replies: str, after: Callable[[], None] | None = None
    ):
        self.tokenizer, self.replies, self.after = tokenizer, list(replies), after
        self.prompts: list[str] = []
        self.seeds: list[int] = []

    def __call__(
        self, network: Any, prompts: list[list[int]], sampling: Sampling, should_stop: Any
    ) -> Iterator[list[int | None]]:
        self.prompts.append(self.tokenizer.decode(prompts[0]))
        self.seeds.append(sampling.seed)
        for token in self.tokenizer.encode_with_special(self.replies.pop(0)):
            if should_stop():
                return
            yield [token]
            if self.after is not None:
                self.after()


@pytest.fixture
def talk(tokenizer: Tokenizer) -> Callable[..., Talk]:
    network = Transformer(load_run_config("tiny").model)

    def make(think: bool | None = None, max_new_tokens: int = 64) -> Talk:
        return Talk(network, tokenizer, Sampling(max_new_tokens, 0.7, 0.95, 5), think, None)

    return make


def play(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    monkeypatch.setattr(chat_command, "generate_stream", script)


def said(pieces: Iterator[Piece]) -> tuple[str, str]:
    """(thinking, reply)"""
    listed = list(pieces)
    return tuple("".join(p.text for p in listed if p.thinking is t) for t in (True, False))  # type: ignore[return-value]


def test_thinking_and_reply_are_told_apart(
    tokenizer: Tokenizer, talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tokenizer, f"{BEGIN}\n你是?\n{END}\n\nA whale.<｜end▁of▁sentence｜>never")
    play(monkeypatch, script)
    chat = talk()
    assert said(chat.reply("Who are you?")) == ("\n你是?\n", "\n\nA whale.")
    assert chat.turns[-1] == {
        "role": "assistant",
        "content": "A whale.",
        "reasoning_content": "你是?",
    }
    assert script.prompts[0].endswith("<｜User｜>Who are you?<｜Assistant｜>")


@pytest.mark.parametrize(
    ("think", "ending", "thinking", "content"),
    [
        (True, f"<｜Assistant｜>{BEGIN}\n", "hm", "so."),
        (False, f"<｜Assistant｜>{BEGIN}\n\n{END}\n\n", "", "hmso."),
        (None, "<｜Assistant｜>", "", "hmso."),
    ],
)
def test_thinking_can_be_asked_for_or_refused(
    tokenizer: Tokenizer,
    talk: Callable[..., Talk],
    monkeypatch: pytest.MonkeyPatch,
    think: bool | None,
    ending: str,
    thinking: str,
    content: str,
) -> None:
    script = Script(tokenizer, f"hm{END}so." if think else "hmso.")
    play(monkeypatch, script)
    chat = talk(think)
    assert said(chat.reply("x")) == (thinking, content)
    assert script.prompts[0].endswith(ending)


def test_earlier_turns_are_remembered_without_their_thinking(
    tokenizer: Tokenizer, talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tokenizer, f"{BEGIN}secret{END}I am Ann.", "Ann.", "Ann.")
    play(monkeypatch, script)
    chat = talk()
    for text in ("Who?", "Again?", "Again?"):
        list(chat.reply(text))
    assert "Who?<｜Assistant｜>I am Ann." in script.prompts[1] and "secret" not in script.prompts[1]
    assert script.seeds == [5, 6, 7]


def test_the_oldest_turns_go_when_the_context_is_full(
    tokenizer: Tokenizer, talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{n} " + "x" * 40 for n in range(8)]
    script = Script(tokenizer, *("yes" for _ in texts))
    play(monkeypatch, script)
    chat = talk(max_new_tokens=100)
    for text in texts:
        list(chat.reply(text))
        assert len(tokenizer.encode_with_special(script.prompts[-1])) <= 256 - 100
    assert texts[-1] in script.prompts[-1] and texts[-2] in script.prompts[-1]
    assert texts[0] not in script.prompts[-1]
    before = list(chat.turns)
    for chat.system, text in ((None, "y" * 300), ("z" * 300, "short")):
        with pytest.raises(RequestError, match="write a shorter one"):
            list(chat.reply(text))
    assert chat.turns == before


def test_ctrl_c_stops_the_reply_and_what_came_is_kept(
    tokenizer: Tokenizer, talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tokenizer, "abcdefgh", "z", after=lambda: signal.raise_signal(signal.SIGINT))
    play(monkeypatch, script)
    chat = talk()
    first = "".join(piece.text for piece in chat.reply("x"))
    assert "abcdefgh".startswith(first) and 0 < len(first) < 8
    assert chat.turns[-1]["content"] == first
    script.after = None
    assert said(chat.reply("y")) == ("", "z")


def show(pieces: list[Piece], *, terminal: bool) -> tuple[str, str]:
    """(where thinking goes, where replies go)"""
    thinking, reply = io.StringIO(), io.StringIO()
    display = Display(thinking, reply, terminal)
    for piece in pieces:
        display.show(piece)
    display.finish()
    return thinking.getvalue(), reply.getvalue()


def test_a_terminal_shows_thinking_dimmed_between_markers_and_obeys_no_model() -> None:
    pieces = [Piece("\n1+1\x1b[2J", True), Piece("=2", True), Piece("\n\n2\x07", False)]
    assert show(pieces, terminal=True) == (
        f"\x1b[2m{BEGIN}\n1+1[2J=2\n{END}\x1b[0m\n",
        "2\n",
    )
    assert show(pieces[:1], terminal=True)[0].endswith(f"\n{END}\x1b[0m\n")


def test_a_pipe_gets_the_reply_as_it_is() -> None:
    pieces = [Piece("\n1+1\n", True), Piece("\n\ntwo\n", False), Piece("lines", False)]
    assert show(pieces, terminal=False) == (f"{BEGIN}\n1+1\n{END}\n", "two\nlines\n")


def test_without_a_terminal_each_line_is_a_message(
    model_path: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = Script(tokenizer, f"{BEGIN}\nhm\n{END}\n\none", "two", "")
    play(monkeypatch, script)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"first\n\n{'y' * 600}\nsecond\nthird\n"))
    monkeypatch.setattr("sys.argv", ["rorqual", "chat", str(model_path), "--system", "Be brief."])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert f"{BEGIN}\nhm\n{END}\n" in err and "(no reply; more than --max-new-tokens 512" in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "write a shorter one" in errors[0]
    assert "Be brief.<｜User｜>first" in script.prompts[0] and "one" in script.prompts[1]


def test_a_real_model_answers_the_same_for_the_same_seed(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[str] = []
    for seed in ("1", "1", "2"):
        monkeypatch.setattr("sys.stdin", io.StringIO("Who are you?\n"))
        arguments = ["--seed", seed, "--max-new-tokens", "12", "--no-think"]
        monkeypatch.setattr("sys.argv", ["rorqual", "chat", str(model_path), *arguments])
        with pytest.raises(SystemExit):
            main()
        answers.append("".join(capsys.readouterr()))
    assert answers[0] == answers[1] != answers[2]


def test_ctrl_d_leaves_and_ctrl_c_at_the_prompt_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[str | type[BaseException]] = ["hello ", KeyboardInterrupt, "  ", "bye", EOFError]

    def read(prompt: str) -> str:
        event = typed.pop(0)
        if isinstance(event, str):
            return event
        raise event

    monkeypatch.setattr("builtins.input", read)
    assert list(chat_command._typed_messages()) == ["hello", "bye"]
    assert "Ctrl-D leaves" in capsys.readouterr().err
