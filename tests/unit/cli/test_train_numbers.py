"""What `train` says of numbers and names that it cannot take."""

import pytest
from click.testing import CliRunner

from mainspring.cli.main import cli


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["late-delivery", "--processes", "lots"], "'lots' is neither a number from 1 on nor `auto`"),
        (["late-delivery", "--processes", "0"], "'0' is neither a number from 1 on nor `auto`"),
        (["late-delivery", "--plan", "--model", "llama-2-7b"], "--plan plans one"),
        (["--plan"], "--plan needs MODEL"),
        (["--model", "llama-2-7b"], "--model goes with --plan"),
        ([], "Missing argument"),
    ],
)
def test_what_train_cannot_take_is_said_with_what_it_takes(given, said):
    result = CliRunner().invoke(cli, ["train", *given])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
