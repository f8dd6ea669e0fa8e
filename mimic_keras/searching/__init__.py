"""`mimic-keras tune`: Bayesian optimisation of the ranges in an experiment, on validation alone."""
