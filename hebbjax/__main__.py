"""`python -m hebbjax` is `hebbjax`."""

from hebbjax import cli

if __name__ == '__main__':
    cli.run()
