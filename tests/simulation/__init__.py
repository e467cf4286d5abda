"""The whole coordinator on a virtual clock, with crashes by plan and an auditor."""
