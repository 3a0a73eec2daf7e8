"""What every package stands on: checks at the doors, specs that compare by value, files written whole, signals."""
