"""Stand-ins that keep the contract of what they stand for, with faults by plan."""
