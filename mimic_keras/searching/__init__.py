"""From one experiment with ranges to the best one, by Bayesian optimisation on validation alone."""
