"""Any predictions file to ``Scores``, every row checked."""
