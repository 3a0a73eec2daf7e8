"""The jobs: whole experiments as functions, behind `python -m hebbjax` and the scripts in `experiments/`."""
