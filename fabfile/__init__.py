"""The same tasks for `fab`; `fab -H trn1 bench.gemm` takes the host from -H."""

from tasks import ns

__all__ = ["ns"]
