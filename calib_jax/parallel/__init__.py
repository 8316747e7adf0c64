"""Mesh, sharding rules, multi-host."""
