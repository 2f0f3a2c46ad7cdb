"""What the checks must not let pass."""

import numpy as np
import pytest
import torch

from byhand import checks


@pytest.mark.parametrize("good", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_one_integer_is_a_size_whatever_holds_it(good):
    checks.size("f", n=good)
    assert checks.per_axis("f", 2, n=good) == (good, good)


@pytest.mark.parametrize("bad", [True, np.bool_(True), np.array(True), torch.tensor(True), 2.5, np.array(2.5), torch.tensor(2.0),
                                 np.array([3]), np.array([2, 3]), torch.tensor([2, 3]), None, "3", 0])
def test_every_array_has_an_index_and_most_are_no_size(bad):
    with pytest.raises(ValueError, match="f needs n as an integer >= 1"):
        checks.size("f", n=bad)
    with pytest.raises(ValueError, match="f needs n as an integer >= 1 or 2 of them"):
        checks.per_axis("f", 2, n=bad)


def test_none_passes_only_where_an_array_may_be_left_out():
    checks.floats("f", x=None)
    with pytest.raises(ValueError, match="f needs x as an array; got None"):
        checks.given("f", x=None)
