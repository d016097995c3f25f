"""For all tests of the zoo: signs are kept in a folder of the tests' own."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGNES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
