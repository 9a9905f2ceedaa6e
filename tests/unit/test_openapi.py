"""The API's document is made of the table of routes: nothing is missing in it, nothing hangs in the air."""

from __future__ import annotations

import json
import re

import pytest

from gridx.messages import MAX_CODE_BYTES
from gridx.services.coordinator import api
from gridx.services.coordinator.api.reference import Reference

REFERENCE = Reference(api.EVERYBODY)


def operations():
    for path, methods in REFERENCE.document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


@pytest.mark.parametrize("route", api.EVERYBODY, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_described(route):
    told = dict(operations())[f"{route.method} {re.sub(r':[^{}]*}', '}', route.path)}"]
    assert told["summary"].endswith("."), "Route(says=...) is missing"
    good = [response for status, response in told["responses"].items() if status[0] in "12"]
    assert good
    if route.status == (200,) and route.method != "HEAD":
        assert "content" in good[0], "Route(gives=...) is missing"
    if route.method in ("POST", "PATCH"):
        named = any(read in _source(route.handler) for read in ("body(", "read_body", "read_json"))
        assert named == ("requestBody" in told), "Route(takes=...) says otherwise than the handler"
    assert (told.get("security") == []) == route.open


def _source(handler) -> str:
    import inspect

    return inspect.getsource(handler)


def test_all_that_is_referred_to_is_there():
    text = REFERENCE.encoded.decode()
    there = set(REFERENCE.document["components"]["schemas"])
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named <= there
    assert {"Job", "JobSpec", "Receipt", "ErrorReply", "Session"} <= named
    assert json.loads(text) == REFERENCE.document


def test_the_page_tells_of_every_operation():
    for path in REFERENCE.document["paths"]:
        assert f" {path}</code>" in REFERENCE.page


def test_names_of_operations_are_unique():
    names = [operation["operationId"] for _, operation in operations()]
    assert len(names) == len(set(names))


def test_bounds_are_those_of_the_decoder_and_patterns_those_of_json_schema():
    schemas = REFERENCE.document["components"]["schemas"]
    assert schemas["JobSpec"]["properties"]["code"]["maxLength"] == MAX_CODE_BYTES
    assert schemas["JobSpec"]["additionalProperties"] is False
    assert r"\A" not in REFERENCE.encoded.decode()
    parameters = REFERENCE.document["paths"]["/jobs"]["get"]["parameters"]
    assert {one["name"] for one in parameters} >= {"state", "q", "owner", "limit", "before"}
    assert not any(one["required"] for one in parameters)
