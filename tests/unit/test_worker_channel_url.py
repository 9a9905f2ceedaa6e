"""The address of the workers' WebSocket, as people give it."""

from __future__ import annotations

import pytest

from gridx.errors import ConfigError
from gridx.services.worker.link import channel_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://10.0.0.5:8080", "ws://10.0.0.5:8080/ws/worker"),
        ("ws://10.0.0.5:8080/", "ws://10.0.0.5:8080/ws/worker"),
        ("ws://10.0.0.5:8080/ws/worker", "ws://10.0.0.5:8080/ws/worker"),
        ("10.0.0.5:8080", "ws://10.0.0.5:8080/ws/worker"),
        (" wss://grid.example ", "wss://grid.example/ws/worker"),
        ("wss://grid.example/behind/a/proxy", "wss://grid.example/behind/a/proxy"),
        ("ws://[::1]:8080", "ws://[::1]:8080/ws/worker"),
    ],
)
def test_the_usual_scheme_and_path_are_added(text, url):
    assert channel_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "http://10.0.0.5:8080", "ws://", "ws://h:99999", "ws://h:0", "ws://u:p@h:1", "ws://h:1/?token=x"],
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(ConfigError) as caught:
        channel_url(text)
    assert "ws://192.168.1.10:8080" in caught.value.hint
