"""The command lines: one short module each; what they share stands in cli.py."""
