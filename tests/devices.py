"""The fake devices that tests run on; importing it starts no JAX."""


def xla_flags(count: int) -> str:
    """XLA_FLAGS for fake devices, and for machine code in the least time.

    Compiling takes most of a test's time. XLA's own passes over a program are those of every run;
    what LLVM is spared are its optimisations, which gain nothing on tiny arrays.
    """
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return f"{quick} --xla_force_host_platform_device_count={count}"
