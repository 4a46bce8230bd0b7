"""What is measured on networks in training: health of the units, convergence, costs."""
