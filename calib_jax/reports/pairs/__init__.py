"""Preference pairs and running text: what a model's answers say of its alignment."""
