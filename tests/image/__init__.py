"""The container image and compose.yaml, replayed without a container daemon."""
