"""Training nets: examples and an objective in, a trained net out; one trainer for teachers, baselines and students."""
