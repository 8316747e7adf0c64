"""What of an alignment is kept: preference pairs and text before and after."""
