"""The accelerator in simulation: Verilator builds, the simulated machine and the testbenches."""
