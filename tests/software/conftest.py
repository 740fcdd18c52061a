import pytest
import tiny_models
import transformers

transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Directory of a small float GPT-2."""
    folder = tmp_path_factory.mktemp("gpt2")
    tiny_models.save(folder)
    return folder


@pytest.fixture(scope="session")
def image(checkpoint, tmp_path_factory):
    """Image of that model for config tiny."""
    import rf8

    path = tmp_path_factory.mktemp("image") / "tiny.rf8"
    rf8.compile(rf8.quantize(rf8.load_model(checkpoint)), config="tiny").save(path)
    return path
