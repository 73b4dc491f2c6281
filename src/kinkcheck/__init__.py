"""Is your gradient right where your network is not differentiable?"""
