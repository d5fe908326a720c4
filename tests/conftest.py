"""What holds for all tests."""

from hypothesis import settings

from tests.fuzz import TIMES

# no deadline: how long an example takes says more of the machine than of the code
settings.register_profile("picogpt", deadline=None, max_examples=100 * TIMES)
settings.load_profile("picogpt")
