"""The microservice around `softxent`: HTTP in, kernels, HTTP out."""
