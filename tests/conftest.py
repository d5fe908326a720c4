"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("picogpt", deadline=None)  # how long an example takes says more of the machine than of us
settings.load_profile("picogpt")
