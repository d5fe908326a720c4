"""How many examples the property tests try: `make fuzz` asks for many times as many as `make test`."""

import os

TIMES = int(os.environ.get("PICOGPT_FUZZ", "1"))
