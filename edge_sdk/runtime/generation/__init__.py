"""Text generation: KV cache, sampling, streaming, several sequences over one session."""
