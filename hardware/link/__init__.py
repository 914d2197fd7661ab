"""Links to real hardware: a chip, or what stands for one, that sets weights and measures E."""
