"""hebbjax."""
