"""``/openapi.json`` and ``/docs``: the API described, for programs and for people.

The page is plain HTML that is made from the document: no script, nothing from elsewhere, and its style sheet
is the one thing that the browser is allowed to use.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from functools import cached_property
from html import escape
from typing import Any, Final

import msgspec
from aiohttp import web

from gridx.services.coordinator.api.call import Parts, Route
from gridx.services.coordinator.api.openapi import Json, document

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
h3 { margin: 2.5rem 0 0; border-top: 1px solid #8888; padding-top: 1rem; }
h4 { margin: 1rem 0 0; }
table { border-collapse: collapse; width: 100%; }
td { padding: 0.2rem 1rem 0.2rem 0; vertical-align: top; border-bottom: 1px solid #8884; }
"""
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BOUNDS: Final = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "minLength": "characters from",
    "maxLength": "characters up to",
    "minItems": "entries from",
    "maxItems": "entries up to",
    "pattern": "like",
    "default": "default",
}


class Reference:
    """What is told of a table of routes; made when it is asked for first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)

    @cached_property
    def document(self) -> Json:
        """The OpenAPI document."""
        return document(self._routes)

    @cached_property
    def encoded(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.format(msgspec.json.encode(self.document), indent=1)

    @cached_property
    def page(self) -> str:
        """The document as HTML."""
        return _page(self.document)


REFERENCE: Final = web.AppKey("reference", Reference)


async def openapi(parts: Parts, request: web.Request) -> web.Response:
    body = await asyncio.to_thread(lambda: request.app[REFERENCE].encoded)
    return web.Response(body=body, content_type="application/json")


async def docs(parts: Parts, request: web.Request) -> web.Response:
    text = await asyncio.to_thread(lambda: request.app[REFERENCE].page)
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": POLICY})


def _page(told: Json) -> str:
    info, parts = told["info"], told["components"]["schemas"]
    lines = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_prose(info['description'])}</p>",
        "<p>Send <code>Authorization: Bearer TOKEN</code>, or a user and password by HTTP Basic. The same "
        'for programs: <a href="/openapi.json">openapi.json</a>.</p>',
        "<h2>Requests</h2>",
    ]
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            lines += _operation(method, path, operation)
    lines.append("<h2>Types</h2>")
    for name, part in sorted(parts.items()):
        lines.append(f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>')
        lines.append(f"<p>{_prose(part.get('description', ''))}</p>")
        lines += _fields(part)
    return "\n".join(lines) + "\n</html>\n"


def _operation(method: str, path: str, operation: Json) -> list[str]:
    lines = [f"<h3><code>{method.upper()} {escape(path)}</code></h3><p>{_prose(operation['summary'])}"]
    if operation.get("security") == []:
        lines.append(" Needs no sign-in.")
    lines.append("</p>")
    if operation["parameters"]:
        lines.append("<table>")
        for one in operation["parameters"]:
            where = "" if one["in"] == "query" else f" ({one['in']})"
            lines.append(_row(one["name"] + where, one["schema"]))
        lines.append("</table>")
    if body := operation.get("requestBody"):
        lines.append(f"<p>Body: {_content(body['content'])}</p>")
    for status, response in operation["responses"].items():
        if status[0] not in "45":
            shown = _content(response.get("content", {})) or _prose(response["description"])
            lines.append(f"<p>{status}: {shown}</p>")
    return lines


def _content(content: Json) -> str:
    """The type of a body, or its media type where it is no JSON."""
    shown = [
        _type(each["schema"]) if kind == "application/json" and "schema" in each else escape(kind)
        for kind, each in content.items()
    ]
    return ", ".join(shown)


def _fields(part: Json) -> list[str]:
    if "enum" in part:
        return [f"<p>{_type(part)}</p>"]
    return ["<table>", *(_row(name, one) for name, one in part.get("properties", {}).items()), "</table>"]


def _row(name: str, schema: Json) -> str:
    shown = [_bounds(each) for each in (schema, *schema.get("anyOf", ()))]
    said = "; ".join(text for text in shown if text)
    return f"<tr><td><code>{escape(name)}</code><td>{_type(schema)}<td>{said}"


def _type(schema: Json) -> str:
    """A type in words, with a link to what is told of it below."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"names with {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("format", kind)))


def _bounds(schema: Json) -> str:
    return ", ".join(
        f"{words} <code>{escape(_value(schema[key]))}</code>"
        for key, words in BOUNDS.items()
        if key in schema
    )


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode() if not isinstance(value, str) or not value else value


def _prose(text: str) -> str:
    """Text of this program with what stands in backticks set as code."""
    pieces = escape(text).replace("``", "`").split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


ROUTES = (
    Route("GET", "/openapi.json", openapi, open=True, says="This document.", gives="application/json"),
    Route("GET", "/docs", docs, open=True, says="The API for people.", gives="text/html"),
)
