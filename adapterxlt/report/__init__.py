"""Reads the store and shows it; never computes models."""
