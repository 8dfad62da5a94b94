"""What plays against what: which networks an objective has, and what each of them minimises."""
