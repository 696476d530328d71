"""What a run trains on: which corpus folder, which vocabulary, how it is mixed."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class DataConfig(BaseModel):
    """From corpora (`rorqual data fetch`, `rorqual data add`) to token shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(
        default=Path("data"),
        description="Data folder: manifest.json, corpus/ and, once built, tokens-<vocab_size>/.",
    )
    vocab_size: int = Field(
        default=8192,
        ge=300,
        description="Size of the tokenizer that is trained on the corpus; one named in `tokenizer` "
        "brings its own.",
    )
    tokenizer: Path | None = Field(
        default=None,
        description="A folder or tokenizer.json to use as it is. None trains one.",
    )
    tokenizer_sample_bytes: int = Field(
        default=10_000_000,
        gt=0,
        description="How much text, over all languages, the tokenizer is trained on.",
    )
    digits: Literal["groups_of_three", "single"] = Field(
        default="groups_of_three",
        description="How a trained tokenizer cuts digits: groups of up to three (V3), or one by "
        "one, which small models need for arithmetic.",
    )
    fim_rate: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of training documents rewritten as prefix, suffix, middle "
        "(DeepSeek-V3, section 2.1).",
    )
    mix: dict[Literal["en", "zh", "code", "chat"], float] | None = Field(
        default=None,
        description="Weights of the languages and of conversations (chat), by bytes of text; what "
        "exceeds them is left out. "
        "None uses every document.",
    )
    tokens_per_shard: int = Field(
        default=1 << 26,
        gt=0,
        description="A training shard is closed once it holds this many tokens.",
    )

    @model_validator(mode="after")
    def _check_mix(self) -> Self:
        if self.mix is not None and (not self.mix or min(self.mix.values()) <= 0):
            raise ValueError(
                f"mix={self.mix} needs weights above 0; leave out the languages you do not want"
            )
        return self
