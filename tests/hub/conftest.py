"""What is created, loaded and converted: the models and files of the tests of checkpoints."""

from tests.checkpoints.conftest import as_yacs, pico, same_weights, small, small_file, small_state, yacs_settings

__all__ = ["as_yacs", "pico", "same_weights", "small", "small_file", "small_state", "yacs_settings"]
