"""What lm.compare and lm.sweep are made of: many trials, shared by processes and hosts, each computed once."""
