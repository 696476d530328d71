"""The server against its own OpenAPI document: no failure of ours, no answer it does not list."""

import warnings
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.server.conftest import ServerFactory

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        status_code_conformance,
    )

CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]
HEADERS = {"x-rorqual": "1"}


def hammer(url: str, examples: int) -> int:
    """Valid and nearly valid requests to every operation; how many operations there are."""
    document = httpx.get(f"{url}/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = url
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        send_some(operation, url, examples)
    return len(operations)


def send_some(operation: Any, url: str, examples: int) -> None:
    """Requests to one operation."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def one(case: Any) -> None:
        case.call_and_validate(base_url=url, headers=HEADERS, checks=CHECKS, timeout=20)

    one()


@pytest.mark.filterwarnings("ignore")
def test_a_few_requests_of_each_kind_are_answered_as_documented(
    start_server: ServerFactory,
) -> None:
    assert hammer(start_server().url, examples=3) > 40


def test_a_key_for_a_model_that_is_not_served_is_a_documented_404(
    start_server: ServerFactory,
) -> None:
    with start_server().http as http:
        body = {"name": "x", "models": ["nobody"]}
        answer = http.post("/api/keys", json=body, headers=HEADERS)
        document = http.get("/openapi.json").json()
    assert answer.status_code == 404
    assert "404" in document["paths"]["/api/keys"]["post"]["responses"]


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_many_requests_of_each_kind_are_answered_as_documented(
    start_server: ServerFactory,
) -> None:
    assert hammer(start_server().url, examples=100) > 40
