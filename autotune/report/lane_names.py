"""What people call the lanes of an estimate."""

NAMES = {
    "tensor": "TensorE",
    "vector": "VectorE",
    "scalar": "ScalarE",
    "gpsimd": "GpSimdE",
    "load": "DMA in",
    "store": "DMA out",
    "move": "DMA inside",
}
