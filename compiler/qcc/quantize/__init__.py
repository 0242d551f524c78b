"""From a float graph to an integer program: calibrate, assign, convert."""
