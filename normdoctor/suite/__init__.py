"""What the pytest plugin does once it is used: the fixture, the items of targets, and the end of a run."""
