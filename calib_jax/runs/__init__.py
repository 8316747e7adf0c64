"""What the jobs share: a run's folder, the models it measures, the questions, the scores."""
