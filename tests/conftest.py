"""Shared by every test: checked shapes, repeatable runs, one cache, the gpu skip."""

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

with install_import_hook("mloss", "shapes.shapes_only"):
    from mloss.digits import load_digits_models

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache of the session's own, so that no test sees what an earlier run left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def digits():
    """The embedded models, trained once a session."""
    return load_digits_models()
