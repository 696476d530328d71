"""Every field of every format is on exactly one of three lists, and the lists hold."""

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from rorqual.errors import RequestError
from rorqual.server.wire.anthropic_body import ANTHROPIC_TABLE
from rorqual.server.wire.chat_body import DEEPSEEK_CHAT, OPENAI_CHAT
from rorqual.server.wire.fields import FieldTable, read_json
from rorqual.server.wire.responses_body import RESPONSES_TABLE
from rorqual.server.wire.text_body import TEXT_TABLE

TABLES = {
    "openai": (OPENAI_CHAT, {"messages": [{}]}),
    "deepseek": (DEEPSEEK_CHAT, {"messages": [{}]}),
    "text": (TEXT_TABLE, {"prompt": "x"}),
    "anthropic": (ANTHROPIC_TABLE, {"model": "m", "messages": [{}], "max_tokens": 1}),
    "responses": (RESPONSES_TABLE, {"input": "x"}),
}
# What the services' own documentation lists; a field may not fall through the lists.
PUBLISHED = {
    "openai": """messages model audio frequency_penalty logit_bias logprobs max_completion_tokens
        max_tokens metadata modalities n parallel_tool_calls prediction presence_penalty
        prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier
        seed service_tier stop store stream stream_options temperature tool_choice tools
        top_logprobs top_p user verbosity web_search_options function_call functions""",
    "deepseek": """messages model thinking reasoning_effort max_tokens temperature top_p stop stream
        stream_options response_format tools tool_choice logprobs top_logprobs user_id
        frequency_penalty presence_penalty""",
    "text": """model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n
        presence_penalty seed stop stream stream_options suffix temperature top_p user""",
    "anthropic": """model messages max_tokens container context_management mcp_servers metadata
        output_config service_tier stop_sequences stream system temperature thinking tool_choice
        tools top_k top_p cache_control inference_geo""",
    "responses": """background conversation include input instructions max_output_tokens
        max_tool_calls metadata model parallel_tool_calls previous_response_id prompt
        prompt_cache_key reasoning safety_identifier service_tier store stream stream_options
        temperature text tool_choice tools top_logprobs top_p truncation user""",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_published_field_is_on_one_list(name: str) -> None:
    table, _ = TABLES[name]
    lists = (table.honoured, table.ignored, frozenset(table.refused))
    for field in PUBLISHED[name].split():
        assert sum(field in one for one in lists) == 1, field


@pytest.mark.parametrize("name", TABLES)
def test_ignored_fields_are_accepted_and_named(name: str) -> None:
    table, least = TABLES[name]
    _, dropped = table.read(least | dict.fromkeys(table.ignored, "anything"))
    assert dropped == tuple(sorted(table.ignored))


@pytest.mark.parametrize("name", TABLES)
def test_refused_and_unknown_fields_are_named(name: str) -> None:
    table, least = TABLES[name]
    for field in [*table.refused, "no_such_field"]:
        with pytest.raises(RequestError) as raised:
            table.read(least | {field: 1})
        assert raised.value.param == field
        table.read(least | {field: None})  # null is not set


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"[" * 100_000,
     b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\\ud800"}', b'"text"'],
)  # fmt: skip
def test_broken_json_is_a_clean_error(body: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        read_json(body)
    assert raised.value.code == "invalid_json"


def test_a_table_is_made_of_its_model() -> None:
    assert isinstance(OPENAI_CHAT, FieldTable) and "messages" in OPENAI_CHAT.honoured
    assert "frequency_penalty" not in DEEPSEEK_CHAT.honoured


def test_the_published_fields_of_responses_are_those_of_the_official_client() -> None:
    known = RESPONSES_TABLE.honoured | RESPONSES_TABLE.ignored | set(RESPONSES_TABLE.refused)
    published = set(ResponseCreateParamsStreaming.__annotations__)
    for base in ResponseCreateParamsStreaming.__orig_bases__:
        published |= set(base.__annotations__)
    assert len(published) > 30 and published <= known
