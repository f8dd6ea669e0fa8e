"""From examples and an objective to a trained net; one trainer for teachers, baselines and students."""
