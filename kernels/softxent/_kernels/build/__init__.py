"""How kernels are compiled, cached and guarded."""
