"""The law for federations in which data points were corrected."""
