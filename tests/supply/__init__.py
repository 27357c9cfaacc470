"""What is released: its bytes, its parts, their licences, and the workflows that release it."""
