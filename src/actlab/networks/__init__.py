"""What is trained: activations, initialisation, stacks of regressors, and the module that trains them."""
