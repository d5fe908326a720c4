"""`python -m picogpt.lm_eval`: EleutherAI's harness with `--model picogpt`: see insight/harness.py."""


def main() -> None:
    """Run the harness's command line."""
    from picogpt.commands import cli
    from picogpt.insight import harness

    with cli.clean_exit():
        harness.run()


if __name__ == "__main__":
    main()
