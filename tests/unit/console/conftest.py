import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from mainspring.console.app import create_app


@pytest.fixture(scope="module")
def project() -> Project:
    """A populated project; tests that change it make their own."""
    return populated()


@pytest.fixture(scope="module")
def app(project):
    return create_app(project)


@pytest.fixture
def anonymous(app) -> Client:
    return Client(app)


@pytest.fixture
def administrator(app, project) -> Client:
    return Client(app, project.key())
