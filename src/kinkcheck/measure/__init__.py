"""One point of any program: its variation, lift, noise, causes, and numbers that are not finite."""
