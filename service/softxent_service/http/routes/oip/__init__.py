"""The Open Inference Protocol (KServe v2) under `/v2`, over the same batches and kernels."""
