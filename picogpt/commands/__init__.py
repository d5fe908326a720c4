"""The commands, a module for each. cli.py is shared by all of them."""
