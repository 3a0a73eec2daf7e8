"""What every package stands on: checks at the doors, specs that compare by value, devices, sums in float64, files."""
