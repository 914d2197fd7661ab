"""What one trial is: perturbation, method, readout, a synapse's sums. Knows no network."""
