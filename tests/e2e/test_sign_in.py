"""Sign-in in a real browser, to which the provider is another site."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kit.console.chromium import DRIVEN, Page, browser
from kit.console.flights import Project, populated
from kit.console.looks import anywhere, served
from kit.identity_provider import CLIENT, SECRET, IdentityProvider, running
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.core.time import SECOND
from mainspring.security.model import Grant, Role

pytestmark = DRIVEN


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with running(IdentityProvider()) as found:
        found.url = found.url.replace("127.0.0.1", "localhost")  # another site than the console's
        yield found


@pytest.fixture
def project(provider: IdentityProvider) -> Project:
    here = anywhere(populated())
    provider.now = lambda: here.wall.now() / SECOND
    callback = f"{here.settings.control.url}/login/callback"
    provider.redirects, provider.shows_page = {callback}, True
    sign_in = SignIn(TrustedIssuer(provider.url, (CLIENT,)), CLIENT, SECRET, redirect=callback)
    return here.having(replace(here.settings, sign_in=sign_in))


def path(page: Page) -> str:
    return str(page.do("location.pathname"))


def test_a_person_comes_back_from_the_provider_to_the_page_that_was_wanted(
    project: Project, provider: IdentityProvider, tmp_path: Path
) -> None:
    with served(project) as address, browser(tmp_path) as chromium:
        page = chromium.page()
        page.go(f"{address}/models")
        page.do("document.querySelector('a.primary').click()")
        page.until("document.querySelector('#back')")
        page.do("document.querySelector('#back').click()")
        page.until("location.pathname === '/models' && !document.querySelector('#key')")
        account = project.accounts.of_subject(provider.url, "ana")
        assert account is not None, "the first sign-in made it"
        project.accounts.grant(Grant("user", account.id, Role.ADMINISTRATOR))
        time.sleep(1.1)  # an account is trusted for a second
        page.go(f"{address}/models")
        assert path(page) == "/models"
        assert page.do("document.querySelector('nav') !== null"), "the strict cookie has come along"
        cookies = page.call("Network.getCookies", urls=[address])["cookies"]
        assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
