"""Stores, credentials, forecasts."""
