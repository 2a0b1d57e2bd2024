"""The laboratory: GRPO with any method in one process, on a small policy, without Ray, vLLM and verl."""
