"""The Open Inference Protocol over gRPC: the same data plane as `serving.gateway`, in a process of its own."""
