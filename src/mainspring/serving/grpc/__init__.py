"""The Open Inference Protocol over gRPC: the same data plane as `serving.http.gateway`, in a process of its own."""
