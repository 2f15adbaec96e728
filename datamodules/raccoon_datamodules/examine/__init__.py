"""Is a data set what it should be: checks of every byte, copies and leaks, distributions."""
