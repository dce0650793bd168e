"""Elementary functions, exact sums and floats of 16 bits, of lanes and of numbers."""
