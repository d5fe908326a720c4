"""What holds for all tests."""

import signal

from hypothesis import settings

from tests.fuzz import TIMES

# no deadline: how long an example takes says more of the machine than of the code
settings.register_profile("picogpt", deadline=None, max_examples=100 * TIMES)
settings.load_profile("picogpt")

# a shell starts `make test &` with Ctrl-C ignored, and every command that a test interrupts would inherit that
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
