"""Rules about the run itself: what could not be examined, and comments and baselines that are out of date."""
