"""The argument parser of every command."""

import pytest

from util.parser import CommandParser


def test_a_main_option_that_does_not_exist_is_an_error():
    parser = CommandParser("x", "About.", ["there", "missing"])
    parser.add_argument("--there")
    with pytest.raises(ValueError, match="missing among the main options"):
        parser.short_help()
