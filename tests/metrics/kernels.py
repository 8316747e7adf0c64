"""The metrics without the look at their values: what runs under jit, and takes any numbers."""

from calib_jax import metrics


class _Kernels:
    def __getattr__(self, name):
        function = getattr(metrics, name)
        return getattr(function, "kernel", function)


kernels = _Kernels()
