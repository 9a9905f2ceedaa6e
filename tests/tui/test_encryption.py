"""What the dashboard says of certificates, and of networks on which others can read along."""

from __future__ import annotations

import msgspec
import pytest

from gridx.services.coordinator.app import Coordinator
from gridx.tui.screens.sign_in import SignInScreen
from tests.tui.conftest import Grid, picture, settings_in


@pytest.fixture
async def encrypted(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDX_HOME", str(tmp_path / "home"))
    settings = settings_in(tmp_path)
    settings = msgspec.structs.replace(
        settings, coordinator=msgspec.structs.replace(settings.coordinator, tls="auto")
    )
    coordinator = Coordinator(settings)
    await coordinator.start()
    yield Grid(settings, coordinator)
    await coordinator.stop()


async def test_a_certificate_that_is_new_is_shown_before_the_password_goes_out(encrypted, until):
    user, password = encrypted.coordinator.first_admin
    shown = encrypted.coordinator.certificate
    async with encrypted.dashboard(None, role="viewer") as (app, pilot):
        await until(lambda: isinstance(app.screen, SignInScreen), "the sign-in", 20)
        app.screen._field("user").value = user
        app.screen._field("password").value = password
        await pilot.press("f5")
        await until(lambda: "First connection" in picture(app), "the question", 20)
        assert shown[:30] in "".join(picture(app).split())
        assert app.client.token is None
        await pilot.press("f5")
        await until(lambda: app.screen is app.desk and app.state.link.connected, "signed in", 20)
        assert "Not encrypted" not in picture(app)


async def test_where_others_can_read_along_the_dashboard_says_so(grid, until, monkeypatch):
    monkeypatch.setattr("gridx.tui.app.private", lambda url: False)
    async with grid.dashboard() as (app, _pilot):
        await until(lambda: "Not encrypted" in picture(app), "the warning", 20)
