"""The embedded models, trained once a session into a cache of the session's own."""

import pytest

from mloss.digits import load_digits_models


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_digits_models()
