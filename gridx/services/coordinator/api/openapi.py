"""The API as an OpenAPI 3.1 document, made from the table of routes and the types of the messages.

Nothing is written twice: what the document says of a body is what the decoder checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any, Final, get_args

import msgspec

from gridx import __version__
from gridx.messages import Digest, ErrorReply, FilePath, Id, UserName
from gridx.services.coordinator.api.call import NoQuery, Route

Json = dict[str, Any]

REFERENCE: Final = "#/components/schemas/{name}"
PATH_TYPES: Final[dict[str, Any]] = {
    "id": Id,
    "user": UserName,
    "name": UserName,
    "sha256": Digest,
    "path": FilePath,
}
"""What stands in the path, by the parameter's name."""
REASONS: Final = {
    101: "The connection becomes a WebSocket.",
    200: "Done.",
    201: "Made.",
    204: "Done; there is nothing to tell.",
    206: "A part of it.",
}
DESCRIPTION: Final = (
    "Grid-X shares machines: a program that is submitted here runs in a sandbox on somebody else's. Amounts "
    "are whole numbers of microcredits, times are UTC. Every error has the same shape: a code, a sentence, a "
    "hint. An `Idempotency-Key` makes it safe to send something again."
)
_PARAMETER: Final = re.compile(r"\{(\w+)(?::[^{}]*)?\}")


def document(routes: Iterable[Route]) -> Json:
    """The whole document.

    Raises:
        KeyError: a parameter of a path has no type in ``PATH_TYPES``.
    """
    routes = list(routes)
    types = [ErrorReply, *PATH_TYPES.values()]
    for route in routes:
        types += [kind for kind in (_body(route)[0], route.gives, route.query) if _is_type(kind)]
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of: dict[str, Json] = dict(zip(map(_key, types), map(_ecma, schemas), strict=True))
    parts = {name: _ecma(part) for name, part in components.items()}

    def schema(kind: Any) -> Json:
        return schema_of[_key(kind)]

    paths: Json = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema, parts)
    used = {name: part for name, part in parts.items() if not name.endswith("Query")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Grid-X", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": used,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "From `POST /auth/login`."},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
        "security": [{"token": []}, {"password": []}],
    }


def _operation(route: Route, schema: Callable[[Any], Json], parts: Json) -> Json:
    body, needed = _body(route)
    error: Json = {"description": "What is wrong, and what to do."}
    if route.method != "HEAD":  # it has no body
        error["content"] = _json(schema(ErrorReply))
    operation: Json = {
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path).rstrip('_')}",
        "summary": route.says,
        "tags": [route.path.split("/")[1]],
        "parameters": [*_path(route, schema), *_query(route, schema, parts), *_key_header(route)],
        "responses": {
            **{str(status): _response(route, status, schema) for status in route.status},
            "4XX": error,
            "503": error,
        },
    }
    if body is not None:
        content = {body: {}} if isinstance(body, str) else _json(schema(body))
        operation["requestBody"] = {"required": needed, "content": content}
    if route.open:
        operation["security"] = []
    return operation


def _path(route: Route, schema: Callable[[Any], Json]) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schema(PATH_TYPES[name])}
        for name in _PARAMETER.findall(route.path)
    ]


def _query(route: Route, schema: Callable[[Any], Json], parts: Json) -> list[Json]:
    if route.query is NoQuery:
        return []
    struct = parts[schema(route.query)["$ref"].rpartition("/")[2]]
    needed = struct.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": _without_null(one)}
        for name, one in struct["properties"].items()
    ]


def _key_header(route: Route) -> list[Json]:
    if not route.keyed:
        return []
    text = "Any text of one's own. What is sent again under it is done once."
    one: Json = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]([ -~]*[!-~])?$"}
    return [{"name": "Idempotency-Key", "in": "header", "description": text, "schema": one}]


def _response(route: Route, status: int, schema: Callable[[Any], Json]) -> Json:
    response: Json = {"description": REASONS[status]}
    if isinstance(route.gives, str):
        response["content"] = {route.gives: {}}
    elif route.gives is not None:
        response["content"] = _json(schema(route.gives))
    if route.headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in route.headers.items()
        }
    return response


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _body(route: Route) -> tuple[Any, bool]:
    """The type of the body, and whether there has to be one."""
    options = get_args(route.takes)
    if NoneType in options:
        return next(kind for kind in options if kind is not NoneType), False
    return route.takes, True


def _is_type(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, str)


def _key(kind: Any) -> str:
    return repr(kind)


def _without_null(schema: Json) -> Json:
    """A parameter that is not given is left out; there is no null in an address."""
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    if schema.get("default") is not None:
        rest["default"] = schema["default"]
    return (
        {**options[0], **rest} if len(options) == 1 else {**rest, **({"anyOf": options} if options else {})}
    )


def _ecma(schema: Json) -> Json:
    """A schema with its patterns as ECMAScript writes them, as JSON Schema wants it."""
    found: Json = _translated(schema)
    return found


def _translated(value: Any) -> Any:
    if isinstance(value, list):
        return [_translated(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner.replace(r"\A", "^").replace(r"\Z", "$")
        if key == "pattern" and isinstance(inner, str)
        else _translated(inner)
        for key, inner in value.items()
    }
