"""The parts of lm.compare and lm.sweep: many runs, shared between processes and hosts."""
