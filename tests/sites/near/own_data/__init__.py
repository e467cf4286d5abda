"""What each of several sites does with its own data points: corrections and hold-out points."""
