"""`python -m hebbjax` is `hebbjax`."""

from hebbjax.cli import main

if __name__ == '__main__':
    main.run()
