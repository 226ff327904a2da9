"""What a kernel runs on: tensors and their views, memory, registers, and the cores that take turns."""
