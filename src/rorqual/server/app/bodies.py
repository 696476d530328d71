"""What the app sends."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rorqual.server.wire.fields import StrictBody


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character U+0000 cannot be kept; leave it out")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
LevelName = Literal["normal", "short_thinking", "small_model", "queue_only", "closed"]


class ProofBody(StrictBody):
    """A solved challenge."""

    challenge: str = Field(max_length=512)
    number: int = Field(ge=0)
    signature: str = Field("", max_length=512)


class CredentialsBody(StrictBody):
    """POST /api/register and /api/session."""

    name: Text = Field(min_length=1, max_length=254)
    password: str = Field(max_length=1024)
    proof: ProofBody | None = None


class TitleBody(StrictBody):
    """POST and PATCH of a conversation."""

    title: Text = Field("", max_length=200)


class RunBody(StrictBody):
    """POST /api/conversations/{id}/runs."""

    parent_id: str | None = Field(None, max_length=64)
    content: Text | None = None
    model: str | None = Field(None, max_length=200)
    thinking: bool = True
    effort: Literal["low", "medium", "high"] = "high"
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)


class KeyBody(StrictBody):
    """POST /api/keys."""

    name: Text = Field(max_length=200)
    expires: str | None = Field(None, max_length=40)
    models: list[str] | None = Field(None, max_length=64)
    cap: int | None = Field(None, ge=0, le=2**62)


class UserBody(StrictBody):
    """PATCH /api/admin/users/{id}."""

    locked: bool | None = None
    role: Literal["user", "admin"] | None = None


class TopUpBody(StrictBody):
    """POST /api/admin/users/{id}/topup, in nano-units."""

    amount: int = Field(gt=0, le=2**53)
    reference: Text | None = Field(None, min_length=1, max_length=100)


class LevelBody(StrictBody):
    """POST /api/admin/level."""

    level: LevelName | Literal["auto"]


class ProblemBody(StrictBody):
    """POST /api/tutor/problems."""

    family: str = Field(max_length=64)
    level: int = Field(ge=1, le=100)
    language: Literal["en", "zh"] = "en"


class HintBody(StrictBody):
    """POST /api/tutor/problems/{id}/hint."""

    step: int = Field(ge=0, le=1000)


class AnswerBody(StrictBody):
    """POST /api/tutor/problems/{id}/check."""

    answer: Text = Field(max_length=4000)


class VerifyBody(StrictBody):
    """POST /api/tutor/verify."""

    text: Text = Field(max_length=4000)
    answer: Text = Field(max_length=20_000)
    language: Literal["en", "zh"] = "en"


class LabRunBody(StrictBody):
    """POST /api/lab/runs."""

    preset: str = Field(max_length=64)
    overrides: list[str] = Field(default_factory=list[str], max_length=64)


class EmptyBody(StrictBody):
    """Nothing is sent."""
