"""What the engine needs of a tokenizer: the text of a sequence's tokens, grammars over them."""

from collections.abc import Sequence

from rorqual.engine.output_text import OutputText
from rorqual.engine.reasoning import ReasoningMarkers, ReasoningSplitter
from rorqual.engine.requests import Request, SamplingParams
from rorqual.engine.structure_compiler import StructureCompiler, StructureState
from rorqual.tokenizer import Tokenizer


class Texts:
    """Makes the text side of sequences for one tokenizer and a model's logits of vocab_size."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]):
        self.tokenizer = tokenizer
        self._structures = StructureCompiler(
            tokenizer, vocab_size=vocab_size, eos_token_ids=list(end_ids)
        )
        self.markers = ReasoningMarkers.of(tokenizer)

    def make_output(self, request: Request) -> OutputText:
        """The text of one of the request's sequences, in the state in which its prompt ends."""
        params = request.params
        splitter = ReasoningSplitter.for_prompt(
            self.tokenizer,
            self.markers if request.split_reasoning else None,
            request.prompt_ids,
            thinking_budget=params.thinking_budget,
            skip_special=params.skip_special_tokens,
        )
        include_stop = params.include_stop_str_in_output
        return OutputText(splitter, params.stop, include_stop=include_stop)

    def make_structure(self, params: SamplingParams, output: OutputText) -> StructureState | None:
        """The matcher of a sequence, in force at once unless the prompt ends inside thinking."""
        if params.structure is None:
            return None
        active = not output.splitter.in_reasoning
        return self._structures.state(params.structure, active=active)
